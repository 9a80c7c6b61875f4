"""PostgreSQL: psycopg is imported here only, and needed by those only who use it (`towerbus[postgres]`)."""
