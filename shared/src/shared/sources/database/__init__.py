"""Tables of a database as a dlt source: `database_source([Table("orders")], name="shop")`."""

from shared.sources.database.base import DatabaseError
from shared.sources.database.source import database_source
from shared.sources.database.table import Mode, Table, TableDeclarationError

__all__ = ["DatabaseError", "Mode", "Table", "TableDeclarationError", "database_source"]
