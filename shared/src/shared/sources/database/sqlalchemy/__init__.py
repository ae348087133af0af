"""Databases that are read by SQLAlchemy: SQLite, MySQL and MariaDB, SQL Server."""

from shared.sources.database.sqlalchemy.database import SqlAlchemyDatabase

__all__ = ["SqlAlchemyDatabase"]
