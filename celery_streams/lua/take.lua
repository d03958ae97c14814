-- Shared by several scripts. `take` returns an entry's message, its count of earlier deliveries and
-- when it was published, in milliseconds since 1970, if it is still held; `drop` removes the entry,
-- once the message is stored elsewhere, so that a script that fails midway leaves it in place;
-- `give_back` moves it to the stream of returned messages.

local function take(stream, group, id)
  if #redis.call('XPENDING', stream, group, id, id, 1) == 0 then return nil end
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if not entry then return nil end
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local deliveries = tonumber(fields['deliveries'] or 0)
  -- Infinity and NaN compare with no limit as they should.
  if not deliveries or not (deliveries >= 0 and deliveries < 1e9) then deliveries = 0 end
  local published = fields['published'] or ''
  if not published:find('^%d+$') then published = id:match('^%d+') end
  return fields['message'] or '', math.floor(deliveries), published
end
local function drop(stream, group, id)
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end
local function give_back(stream, group, id, returned, message, deliveries, published, ...)
  redis.call('XADD', returned, '*', 'message', message, 'deliveries', deliveries,
    'published', published, ...)
  drop(stream, group, id)
end
