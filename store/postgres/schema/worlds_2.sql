-- A stream's stretches in the order of their batches, page by page.
CREATE INDEX world_stretch_order ON world_stretch (stream, first_batch, id);
