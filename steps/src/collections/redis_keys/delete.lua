-- Deletes a key that is in the state that it is said to be in: `done`, `gone`, or how it changed.
local kind, digest, expires = state(KEYS[1])
if kind == 'none' then return 'gone' end
if kind ~= ARGV[1] then return 'it was a ' .. ARGV[1] .. ' and is a ' .. kind end
if digest ~= ARGV[2] then return 'it has another value' end
if string.format('%.0f', expires) ~= ARGV[3] then return 'it expires at another time' end
redis.call('UNLINK', KEYS[1])
return 'done'
