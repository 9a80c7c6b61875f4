-- The outbox of docs/outbox.md. Run it once in the application's database: psql -f outbox.sql DATABASE

CREATE TABLE towerbus_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,     -- the order; its index is all that the bridge needs
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    "group" text NOT NULL,
    type text NOT NULL,
    payload json NOT NULL                                   -- json keeps the text as it is; jsonb would do, too
);

-- Rows come and go: without this the table is looked through again only when a fifth of it is new.
ALTER TABLE towerbus_outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The doorbell. It may be left out; rows are then found within `poll` seconds.
CREATE FUNCTION towerbus_ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('towerbus_outbox', '');
    RETURN NULL;
END $$;

CREATE TRIGGER towerbus_ring AFTER INSERT ON towerbus_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION towerbus_ring();

-- The bridge's own user needs no more than:
--     GRANT SELECT, DELETE ON towerbus_outbox TO towerbus;
