-- The type of a key, the digest of its value, when it expires, and all that it takes to put it back; nothing when there is none. One that
-- takes more memory than allowed is told by its size alone.
local used = redis.pcall('MEMORY', 'USAGE', KEYS[1])
if type(used) == 'number' and used > tonumber(ARGV[1]) then return used end
local kind, digest, expires = state(KEYS[1])
if kind == 'none' then return nil end
return {kind, digest, expires, redis.call('DUMP', KEYS[1])}
