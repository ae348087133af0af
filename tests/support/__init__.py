"""Code that several tests share: processes, servers, the GraphQL API, and waiting for an event."""
