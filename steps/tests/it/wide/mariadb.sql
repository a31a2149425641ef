create table wide (
    id bigint unsigned auto_increment primary key,
    a decimal(40, 10), b timestamp(6) null, c varbinary(20), d json, e float, f double, g enum ('sad', 'it''s ok'), h set ('a', 'b', 'c'),
    i bit(12), j time(3), k year, l char(5), m text character set latin1, n mediumblob, note varchar(20),
    twice bigint generated always as (k * 2) stored
);
insert into wide (id, a, b, c, d, e, f, g, h, i, j, k, l, m, n, note) values
    (5, 123456789012345678901234567890.1234567890, '2026-02-03 04:05:06.123456', x'00ff5c27', '{"a": 1,  "b" :2}', 0.1, 0.1,
     'it''s ok', 'a,c', b'101', '-838:59:58.999', 2026, 'ab', 'a\\b''c"d\n\t é', x'00', 'one'),
    (6, -0.0000000001, null, x'', 'null', -3.4e38, 0.30000000000000004, 'sad', '', b'0', '00:00:00', 1901, '', '', x'', ''),
    (18446744073709551614, 0, '1970-01-01 00:00:01', x'41', '[]', 1e-38, 1.7976931348623157e308, null, 'a,b,c', b'111111111111',
     '23:59:59.001', 2155, 'abcde', null, repeat('x', 70000), null),
    (7, null, null, null, null, null, 5e-300, null, null, null, null, null, null, null, null, null);
create table original as select * from wide;
