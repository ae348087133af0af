with objects as (
    select
        cast(date_trunc('week', close_approach_date) as date) as week,
        case
            when estimated_diameter_meters_max < 50 then 'small'
            when estimated_diameter_meters_max < 300 then 'medium'
            else 'large'
        end as size,
        miss_distance_lunar
    from {{ source('nasa_neo', 'near_earth_objects') }}
)

select
    week,
    size,
    count(*) as asteroids,
    min(miss_distance_lunar) as closest_lunar_distance
from objects
group by week, size
