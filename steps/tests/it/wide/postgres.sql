create type mood as enum ('sad', 'it''s ok');
create table wide (
    id bigint generated always as identity primary key,
    a numeric, b timestamptz, c bytea, d jsonb, e json, f text[], g mood, h uuid, i float8, j float4, k interval,
    l char(5), m int4range, n inet, o date, p bit(3), q boolean, r text, s int[][], t time with time zone, u varbit,
    v timestamp(3), w numeric(10, 4), x "char", y tsvector, z point, note varchar(20),
    twice bigint generated always as (id * 2) stored
);
insert into wide (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, note) values
    ('123456789012345678901234567890.12345678900', '2026-02-03 04:05:06.123456+02', '\x00ff5c27',
     '{"big": 123456789012345678901234567890.10, "a": [1, null]}', '{"a": 1,  "a" :2}', array['x,"y\', null, ''], 'it''s ok',
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 0.1, 0.1, '1 mon -3 days 04:05:06.789', 'ab', '[1,5)', '10.0.0.1/8',
     '0044-03-15 BC', '101', true, E'a\\b''c"d\n\t é ☃', array[[1, 2], [3, 4]], '04:05:06.123456+05:30', '10110',
     '2026-02-03 04:05:06.789', 1.5, 'x', 'fat:2 cat:3', '(0.1,-0)', 'one'),
    ('NaN', 'infinity', '', 'null', 'null', '{}', 'sad', null, '-0', 'NaN', '-178000000 years', '', 'empty', '::1', 'infinity',
     '000', false, '', '{}', '00:00:00+00', '', '-infinity', -0.0001, '', '', null, ''),
    (1.10, '0001-01-01 00:00:00 BC', null, '"\u00e9"', '[]', null, null, null, 'Infinity', '-Infinity', '0', null, null, null, null, null,
     null, null, null, null, null, null, null, null, null, null, null),
    (1.1000, 'epoch', '\x', '{}', '{}', array[null]::text[], null, null, 1e-320, 3.4e38, '1 year 2 months', '     ', '(,)', '0.0.0.0/0',
     '9999-12-31', '111', null, '\x41', null, '23:59:60-12', '1', '9999-12-31 23:59:59.999', 999999.9999, 'é', 'a', '(NaN,1e300)', 'four');
