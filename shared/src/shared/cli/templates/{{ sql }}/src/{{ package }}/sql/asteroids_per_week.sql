-- Near-earth asteroids by week and size, and how close the closest one came.
SELECT
    -- The Monday of the week of the close approach, UTC.
    date_trunc('week', close_approach_date)::DATE AS week,
    -- By the largest estimated diameter: small is below 50 m, medium below 300 m.
    CASE
        WHEN estimated_diameter_meters_max < 50 THEN 'small'
        WHEN estimated_diameter_meters_max < 300 THEN 'medium'
        WHEN estimated_diameter_meters_max >= 300 THEN 'large'
    END AS size,
    -- How many close approaches of asteroids of this size.
    count(*) AS asteroids,
    -- The distance of the closest one, in distances of the Moon.
    min(miss_distance_lunar) AS closest_lunar_distance
FROM nasa_neo.near_earth_objects
GROUP BY 1, 2
