-- Certificates renewed, devices that take another's place. Encodings: see store/mod.rs.

-- `certificate_pem` stays what enrolment gave, for the same two keys get the same answer again.
ALTER TABLE device ADD COLUMN renewed_pem TEXT;
-- of the newest certificate; none when an older build issued it
ALTER TABLE device ADD COLUMN certificate_ends_ms INTEGER;
-- a device is replaced once
ALTER TABLE device ADD COLUMN replaces TEXT REFERENCES device (id);
CREATE UNIQUE INDEX device_by_replaced ON device (replaces);

-- the device whose place the token's device takes
ALTER TABLE enrolment_token ADD COLUMN replaces TEXT REFERENCES device (id);
