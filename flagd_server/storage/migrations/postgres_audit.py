"""The step that chains the audit, and lets it grow at its end only.

There has been no server on Postgres without it: an audit that it meets is empty.
"""

STATEMENTS = (
    """ALTER TABLE audit
    ADD COLUMN previous_hash bytea NOT NULL CHECK (length(previous_hash) = 32),
    ADD COLUMN hash bytea NOT NULL CHECK (length(hash) = 32)""",
    """CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit is append-only: no entry is changed or deleted'
            USING ERRCODE = 'integrity_constraint_violation';
    END $$""",
    """CREATE FUNCTION audit_follows() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        last_id bigint;
        last_hash bytea;
    BEGIN
        SELECT id, hash INTO last_id, last_hash FROM audit ORDER BY id DESC LIMIT 1;
        IF NEW.id <= coalesce(last_id, 0)
            OR NEW.previous_hash <> coalesce(last_hash, decode(repeat('00', 32), 'hex'))
        THEN
            RAISE EXCEPTION 'the audit is append-only: an entry follows the last'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END $$""",
    """CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_refuses()""",
    """CREATE TRIGGER audit_is_not_truncated BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()""",
    """CREATE TRIGGER audit_grows_at_its_end BEFORE INSERT ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_follows()""",
)
