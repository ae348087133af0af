"""A failed request writes the API key to no log, event, metadata, trace, working directory or table."""

from stress.harness import Tally, Workspace, objects_of

KEY = "marked-key-5f3a9c"
DAY = "2025-04-01"
FAILURES: dict[str, tuple[int, str, str] | None] = {
    "none": None,
    "outage": (503, "text/html", "<html>down</html>"),
    "refused key": (403, "application/json", '{"error": {"code": "API_KEY_INVALID"}}'),
    "not found": (404, "application/json", f'{{"request": "http://x?api_key={KEY}"}}'),
    "bad request": (400, "application/json", f'{{"error_message": "see http://x?api_key={KEY}"}}'),
    "no feed": (200, "application/json", f'{{"links": "?api_key={KEY}"}}'),
    "no JSON": (200, "text/html", f"<a href='?api_key={KEY}'>"),
    "invalid object": (
        200,
        "application/json",
        f'{{"near_earth_objects": {{"{DAY}": [{{"links": "?api_key={KEY}"}}]}}}}',
    ),
    "invalid value": (
        200,
        "application/json",
        f'{{"near_earth_objects": {{"{DAY}": [{{"close_approach_data": "?api_key={KEY}"}}]}}}}',
    ),
}


def test_no_failure_writes_the_key_to_a_file(workspace: Workspace, tally: Tally) -> None:
    """No file of a run has the API key, whichever failure the run had."""
    home = workspace.folder / "home"
    home.mkdir()
    workspace.environment |= {
        "NASA_API_KEY": KEY,
        "DAGSTER_HOME": str(home),
        "RUNTIME__REQUEST_BACKOFF_FACTOR": "0",
    }
    workspace.neows.days[DAY] = objects_of(DAY, 3)
    for name, failure in FAILURES.items():
        workspace.neows.failure = failure
        (code,) = workspace.run(
            workspace.command("api_etl", "nasa_neo/near_earth_objects", partition=DAY, stored=True)
        )
        files = [path for path in workspace.folder.rglob("*") if path.is_file()]
        leaks = [str(path) for path in files if KEY.encode() in path.read_bytes()]
        sent = workspace.neows.requests[-1][1]["X-Api-Key"] == KEY
        ended = (code == 0) == (failure is None)
        tally.trial(sent and ended and not leaks, f"{name}: {code}, {leaks}")
    workspace.neows.failure = None
    workspace.environment["NASA_BASE_URL"] = "http://127.0.0.1:9/neo"
    (code,) = workspace.run(
        workspace.command("api_etl", "nasa_neo/near_earth_objects", partition=DAY, stored=True)
    )
    files = [path for path in workspace.folder.rglob("*") if path.is_file()]
    leaks = [str(path) for path in files if KEY.encode() in path.read_bytes()]
    tally.trial(code == 1 and not leaks, f"unreachable: {code}, {leaks}")
    assert len(files) > 20, "the runs stored too few files for this test"
