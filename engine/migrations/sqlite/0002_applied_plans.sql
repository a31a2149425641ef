-- The saved plan that a run applies: each is applied once.
alter table runs add column applies text;

create unique index runs_applies on runs (applies) where applies is not null;
