-- The checksum of what a row says, so that what changed on the disk is not taken for what was written. None in rows of before.
alter table runs add column sum text;
alter table events add column sum text;
alter table obligations add column sum text;
alter table facts add column sum text;
alter table counters add column sum text;
alter table batches add column intent_sum text;
alter table batches add column settled_sum text;
