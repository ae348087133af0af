-- The names of tables in the warehouse, which depend on the environment. Runs of Dagster set the variables.

{% macro generate_schema_name(custom_schema_name, node) -%}
  {%- set dataset = (custom_schema_name or target.schema) | trim -%}
  {{ var('stored_datasets', {}).get(dataset, dataset) }}
{%- endmacro %}

{% macro source(source_name, table_name) -%}
  {% do return(stored_relation(builtins.source(source_name, table_name))) %}
{%- endmacro %}

{% macro ref() -%}
  {% do return(stored_relation(builtins.ref(*varargs, **kwargs))) %}
{%- endmacro %}

{% macro stored_relation(relation) -%}
  {% set stored = var('stored_tables', {}).get(relation.schema ~ '.' ~ relation.identifier) %}
  {% if stored %}
    {% do return(relation.incorporate(path=stored)) %}
  {% endif %}
  {% do return(relation) %}
{%- endmacro %}

-- The query for when the rows of a table were loaded, as dlt recorded it.
{% macro loaded_at(relation) -%}
  {%- set table = stored_relation(relation) -%}
  select max(inserted_at) from {{ table.incorporate(path={'identifier': '_dlt_loads'}) }}
  where status = 0 and load_id in (select _dlt_load_id from {{ table }})
{%- endmacro %}

-- The rows of an input of a unit test: as dbt makes them, with the columns of the table's stored name.
{% macro get_fixture_sql(rows, column_name_to_data_types) -%}
  {% set table = stored_relation(this) %}
  {% if column_name_to_data_types or table | string == this | string %}
    {% do return(dbt.get_fixture_sql(rows, column_name_to_data_types)) %}
  {% endif %}
  {% set types = {} %}
  {% set columns = adapter.get_columns_in_relation(table) %}
  {% for column in columns %}
    {% do types.update({column.name | lower: column.data_type}) %}
  {% endfor %}
  {{ validate_fixture_rows(rows, row_number) }}
  {% for row in rows or [{}] %}
    {% set values = format_row(row, types) %}
    select
    {% for column in columns %}
      {{ values.get(column.name | lower) or safe_cast('null', column.data_type) }} as {{ column.quoted }}
      {{- "," if not loop.last }}
    {% endfor %}
    {{ "limit 0" if not rows }}
    {{ "union all" if not loop.last }}
  {% endfor %}
{%- endmacro %}
