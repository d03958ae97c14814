-- Shared by several scripts. `take` returns an entry's message and its count of earlier deliveries,
-- if it is still held; `drop` removes the entry, once the message is stored elsewhere, so that a
-- script that fails midway leaves it in place.

local function take(stream, group, id)
  if #redis.call('XPENDING', stream, group, id, id, 1) == 0 then return nil end
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if not entry then return nil end
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local deliveries = tonumber(fields['deliveries'] or 0)
  -- Infinity and NaN compare with no limit as they should.
  if not deliveries or not (deliveries >= 0 and deliveries < 1e9) then deliveries = 0 end
  return fields['message'] or '', math.floor(deliveries)
end
local function drop(stream, group, id)
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end
