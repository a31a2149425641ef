-- Which state a key is in: its type, a digest of its value, and when it expires, in milliseconds since 1970 (-1: never).
-- A set and a hash have no order of their own: the same members may be dumped in another one.
local function state(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return kind end
  local members = {}
  if kind == 'set' then
    for _, member in ipairs(redis.call('SMEMBERS', key)) do
      members[#members + 1] = redis.sha1hex(member)
    end
  elseif kind == 'hash' then
    local flat = redis.call('HGETALL', key)
    for at = 1, #flat, 2 do
      members[#members + 1] = redis.sha1hex(#flat[at] .. ':' .. flat[at] .. flat[at + 1])
    end
  else
    members[1] = redis.sha1hex(redis.call('DUMP', key))
  end
  table.sort(members)
  return kind, redis.sha1hex(table.concat(members)), redis.call('PEXPIRETIME', key)
end
