"""What has to happen in Redis at once: a message is in exactly one place at any time.

Lua in Redis runs as one transaction: https://redis.io/docs/latest/develop/programmability/
"""

from hashlib import sha1
from typing import Any

from redis.exceptions import NoScriptError

#: The first line of a script that a server out of memory runs: what was accepted goes on, and
#: frees memory as it ends. Nothing new is accepted.
FOR_ACCEPTED = "#!lua flags=allow-oom\n"
#: Bytes up to which a sender is told the result; of a larger one, its key.
LARGE = 64 * 1024


class Script:
    """A Lua script, sent whole once and by its digest from then on."""

    def __init__(self, source: str, *, is_for_new: bool = False) -> None:
        self.source = source if is_for_new else FOR_ACCEPTED + source
        #: How Redis names it.
        self.digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Any, keys: list[str], *argv: Any) -> Any:
        """Run the script and return its reply; raises redis-py's errors."""
        try:
            return client.evalsha(self.digest, len(keys), *keys, *argv)
        except NoScriptError:  # the first time, and after a restart of the server
            return client.eval(self.source, len(keys), *keys, *argv)


#: Append messages to a stream that is bounded: all of them or none.
#: KEYS: stream. ARGV: greatest length, message, ...
PUBLISH = Script(
    """
if redis.call('XLEN', KEYS[1]) + #ARGV - 1 > tonumber(ARGV[1]) then
  return redis.error_reply('QUEUEFULL ' .. KEYS[1] .. ' holds ' .. ARGV[1] .. ' messages')
end
for i = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'message', ARGV[i]) end
return #ARGV - 1
""",
    is_for_new=True,
)

#: Append a message to a stream that is bounded, unless the same was appended last; note that.
#: KEYS: stream, note. ARGV: greatest length, message, token, what to note, its seconds.
#: Returns what was noted as the message with this token was appended, now or before.
PUBLISH_ONCE = Script(
    """
local noted = redis.call('GET', KEYS[2])
local beginning = ARGV[3] .. ' '
if noted and string.sub(noted, 1, #beginning) == beginning then
  return string.sub(noted, #beginning + 1)
end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
  return redis.error_reply('QUEUEFULL ' .. KEYS[1] .. ' holds ' .. ARGV[1] .. ' messages')
end
redis.call('XADD', KEYS[1], '*', 'message', ARGV[2])
redis.call('SET', KEYS[2], beginning .. ARGV[4], 'EX', ARGV[5])
return ARGV[4]
""",
    is_for_new=True,
)

#: Keep a message until its time.
#: KEYS: delayed. ARGV: greatest length, time in seconds, priority step, message
DELAY = Script(
    """
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  return redis.error_reply('QUEUEFULL ' .. KEYS[1] .. ' holds ' .. ARGV[1] .. ' messages')
end
return redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3] .. ':' .. ARGV[4])
""",
    is_for_new=True,
)

#: Store a job's state, unless it must not replace what is there.
#: Returns 1 if it is stored, 0 if not, or what is there: its state is found here in JSON alone.
_STORE = """
local function store(key, payload, seconds, states, are_kept, digest)
  -- A key of another type holds no result; SET takes its place.
  local head = redis.pcall('GETRANGE', key, 0, 63)
  if type(head) == 'string' and head ~= '' then
    local state = string.match(head, '^{"status": ?"([^"\\\\]*)"')
    if state then
      local is_named = string.find(states, ' ' .. state .. ' ', 1, true) ~= nil
      if is_named == are_kept then return 0 end
    else
      local stored = redis.call('GET', key)
      if digest and redis.sha1hex(stored) ~= digest then return stored end
    end
  end
  if seconds == '0' then
    redis.call('SET', key, payload)
  else
    redis.call('SET', key, payload, 'EX', seconds)
  end
  -- No right to announce it is no reason to lose it: whoever waits reads the key, too.
  redis.pcall('PUBLISH', key, payload)
  return 1
end
"""

#: Store a job's state and announce it, unless it must not replace what is there.
#: KEYS: the job's. ARGV: the payload; its seconds, 0 for ever; the sender's channel, or
#: nothing; names of states between spaces; `kept` if these are not replaced, `only` if no
#: other is; the digest of what may be replaced whatever it is, or nothing. Returns as above.
STORE = Script(f"""{_STORE}
local is_stored = store(KEYS[1], ARGV[1], ARGV[2], ARGV[4], ARGV[5] == 'kept', ARGV[6])
if is_stored == 1 and ARGV[3] ~= '' then
  redis.pcall('PUBLISH', ARGV[3], #ARGV[1] <= {LARGE} and ARGV[1] or KEYS[1])
end
return is_stored
""")

#: Store the results of messages, acknowledge them, then fetch up to so many from the first streams
#: that have some. What a sender is told at once of several results is a JSON list of them.
#: KEYS: streams to fetch from, the most urgent first; streams to acknowledge in; results.
#: ARGV: group, consumer, number to fetch, number of streams to fetch from, number of streams to
#: acknowledge in; for each of these the number of ids, and the ids; for each result its payload,
#: its seconds, 0 for ever, and the sender's channel, or nothing.
#: Returns what XREADGROUP does.
FETCH = Script(f"""{_STORE}
local group, consumer, left = ARGV[1], ARGV[2], tonumber(ARGV[3])
local streams, results = tonumber(ARGV[4]), ARGV[4] + ARGV[5]
local at = 6

local told = {{}}
local function tell(channel, notice)
  told[channel] = told[channel] or {{size = 0}}
  local notices = told[channel]
  if #notices > 0 and notices.size + #notice > {LARGE} then
    redis.pcall('PUBLISH', channel, '[' .. table.concat(notices, ',') .. ']')
    notices = {{size = 0}}
    told[channel] = notices
  end
  notices[#notices + 1] = notice
  notices.size = notices.size + #notice
end

local ids = {{}}
for k = streams + 1, results do
  local last = at + tonumber(ARGV[at])
  ids[KEYS[k]] = {{unpack(ARGV, at + 1, last)}}
  at = last + 1
end
for k = results + 1, #KEYS do
  local payload, seconds, channel = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  if store(KEYS[k], payload, seconds, ' SUCCESS ', true) == 1 and channel ~= '' then
    if #payload > {LARGE} then
      redis.pcall('PUBLISH', channel, KEYS[k])
    else
      tell(channel, payload)
    end
  end
end
for channel, notices in pairs(told) do
  local text = table.concat(notices, ',')
  redis.pcall('PUBLISH', channel, #notices == 1 and text or '[' .. text .. ']')
end
for stream, its in pairs(ids) do
  redis.call('XACK', stream, group, unpack(its))
  redis.call('XDEL', stream, unpack(its))
end

local fetched = {{}}
for k = 1, streams do
  if left <= 0 then break end
  -- Most are empty, and this asks for a third of the time.
  local reply = redis.call('XLEN', KEYS[k]) > 0 and redis.call(
    'XREADGROUP', 'GROUP', group, consumer, 'COUNT', left, 'STREAMS', KEYS[k], '>')
  if reply then
    fetched[#fetched + 1] = reply[1]
    left = left - #reply[1][2]
  end
end
return fetched
""")

#: What several scripts do. `take` tells an entry's message and how often it was delivered before,
#: if a consumer still has it; `drop` removes it, once the message is elsewhere: a script that
#: fails midway leaves it where it was.
_TAKE = """
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
"""

#: Release messages, to be fetched first of their priority.
#: KEYS: returned, stream. ARGV: group, what to add to the number of deliveries, id, ...
#: Returns how many there were.
HAND_BACK = Script(f"""{_TAKE}
local count = 0
for i = 3, #ARGV do
  local message, deliveries = take(KEYS[2], ARGV[1], ARGV[i])
  if message then
    redis.call(
      'XADD', KEYS[1], '*', 'message', message, 'deliveries', deliveries + tonumber(ARGV[2]))
    drop(KEYS[2], ARGV[1], ARGV[i])
    count = count + 1
  end
end
return count
""")

#: Hand back all that a consumer has been given, but for what it goes on with.
#: KEYS: returned, stream. ARGV: group, consumer, id to keep, ...
HAND_BACK_ALL = Script(f"""{_TAKE}
local keep, count, start = {{}}, 0, '-'
for i = 3, #ARGV do keep[ARGV[i]] = true end
repeat
  local held = redis.pcall('XPENDING', KEYS[2], ARGV[1], start, '+', 1000, ARGV[2])
  if held.err then return count end
  for _, each in ipairs(held) do
    local message, deliveries
    if not keep[each[1]] then message, deliveries = take(KEYS[2], ARGV[1], each[1]) end
    if message then
      redis.call('XADD', KEYS[1], '*', 'message', message, 'deliveries', deliveries)
      drop(KEYS[2], ARGV[1], each[1])
      count = count + 1
    end
    start = '(' .. each[1]
  end
until #held < 1000
return count
""")

#: Put off what is not to be done yet.
#: KEYS: delayed, stream. ARGV: group, id, time in seconds, priority step
PUT_OFF = Script(f"""{_TAKE}
local message = take(KEYS[2], ARGV[1], ARGV[2])
if not message then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4] .. ':' .. message)
drop(KEYS[2], ARGV[1], ARGV[2])
return 1
""")

#: Lay a message among the dead letters.
#: KEYS: dead, stream. ARGV: group, id, time as text, reason, greatest length. Returns 1, or 0
#: where somebody else has the message by now.
BURY = Script(f"""{_TAKE}
local message, deliveries = take(KEYS[2], ARGV[1], ARGV[2])
if not message then return 0 end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'message', message,
  'reason', ARGV[4], 'time', ARGV[3], 'deliveries', deliveries + 1)
drop(KEYS[2], ARGV[1], ARGV[2])
return 1
""")

#: Put a letter back into its queue, with no deliveries counted; forget the failure it was answered
#: with, unless that is another by now.
#: KEYS: dead letters, stream, result. ARGV: id, message, the failure as it is stored or "".
#: Returns 1, or 0 where the letter is gone.
REPLAY = Script("""
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[3] ~= '' and redis.call('GET', KEYS[3]) == ARGV[3] then redis.call('DEL', KEYS[3]) end
redis.call('XADD', KEYS[2], '*', 'message', ARGV[2])
return 1
""")

#: Move what is due, and what was pushed to kombu's lists, into the streams.
#: KEYS: delayed, then for each priority step its stream and its list.
#: ARGV: most messages to move from each place, then the priority steps.
#: Returns the server's time in seconds, as text; when the next delayed message is due, as text, or
#: nothing; the greatest number that was moved from one place.
PROMOTE = Script("""
local most = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = string.format('%d.%06d', clock[1], clock[2])
local stream_of = {}
for i = 2, #ARGV do stream_of[ARGV[i]] = KEYS[2 * i - 2] end

local due = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
for _, each in ipairs(due) do
  local step, message = each:match('^(%d+):(.*)$')
  redis.call('XADD', stream_of[step] or KEYS[2], '*', 'message', message or each)
  redis.call('ZREM', KEYS[1], each)
end
local moved = #due
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')

for k = 3, #KEYS, 2 do
  local messages = redis.call('LRANGE', KEYS[k], -most, -1)
  for i = #messages, 1, -1 do
    redis.call('XADD', KEYS[k - 1], '*', 'message', messages[i])
    redis.call('RPOP', KEYS[k])
  end
  moved = math.max(moved, #messages)
end
return {now, first[2] or '', moved}
""")

#: Return what dead consumers held, and forget dead consumers; move what an earlier version released
#: into the stream of its step.
#: KEYS: the earlier version's stream, then for each priority step its stream of returned
#: messages and its stream. ARGV: group, the consumer, milliseconds of the lease (0: reclaim
#: nothing), greatest number of deliveries, milliseconds after which an idle consumer is forgotten,
#: most messages to move from each stream, then the priority steps.
#: Returns `stream, id, message` of each that was delivered too often, which stay where they are.
RECLAIM = Script(f"""{_TAKE}
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local limit, idle, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local too_often = {{}}

-- The stream of returned messages of the priority that a message names.
local function returned_of(message)
  local found = KEYS[2]
  local _, parsed = pcall(cjson.decode, message)
  local properties = type(parsed) == 'table' and parsed['properties']
  local priority = type(properties) == 'table' and tonumber(properties['priority'])
  for i = 7, #ARGV do
    if priority and priority >= tonumber(ARGV[i]) then found = KEYS[2 * (i - 7) + 2] end
  end
  return found
end

-- Of the earlier version: what is not pending is moved; what is, as its lease is over.
local first = 2
if redis.call('EXISTS', KEYS[1]) == 1 then
  local last = '-'
  for _, each in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local about = {{}}
    for i = 1, #each, 2 do about[each[i]] = each[i + 1] end
    if about['name'] == group then first, last = 1, '(' .. about['last-delivered-id'] end
  end
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], last, '+', 'COUNT', most)) do
    local fields = {{}}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    redis.call('XADD', returned_of(fields['message'] or ''), '*', unpack(entry[2]))
    redis.call('XDEL', KEYS[1], entry[1])
  end
  if redis.call('XLEN', KEYS[1]) == 0 then
    redis.call('UNLINK', KEYS[1])
    first = 2
  end
end

if lease == 0 then return too_often end
for k = first, #KEYS do
  local stream = KEYS[k]
  for _, each in ipairs(redis.call('XPENDING', stream, group, 'IDLE', lease, '-', '+', most)) do
    local message, deliveries = take(stream, group, each[1])
    if message and deliveries + 1 >= limit then
      -- Its time begins anew: no other consumer is told of it meanwhile.
      redis.call('XCLAIM', stream, group, consumer, 0, each[1], 'JUSTID')
      too_often[#too_often + 1] = {{stream, each[1], message}}
    else
      if message then
        local returned = k == 1 and returned_of(message) or KEYS[k - k % 2]
        redis.call('XADD', returned, '*', 'message', message, 'deliveries', deliveries + 1)
      end
      drop(stream, group, each[1])
    end
  end
  for _, each in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local about = {{}}
    for i = 1, #each, 2 do about[each[i]] = each[i + 1] end
    if about['pending'] == 0 and about['idle'] > idle then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, about['name'])
    end
  end
end
return too_often
""")

#: Keep the ids of revoked jobs, by the server's time; forget the oldest.
#: KEYS: a sorted set. ARGV: seconds that they are kept, greatest number, id, ...
#: Returns the places, from 1, of the ids that were not there yet.
REVOKE = Script("""
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local added = {}
for i = 3, #ARGV do
  if redis.call('ZADD', KEYS[1], 'NX', now, ARGV[i]) == 1 then added[#added + 1] = i - 2 end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return added
""")

#: Have the keys of a queue expire that are there.
#: KEYS: all of the queue. ARGV: milliseconds
EXPIRE = Script("""
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
return #KEYS
""")

#: Count a queue's messages: those that wait, that are for later, that consumers hold, and the dead
#: letters. KEYS: delayed, dead, then streams and kombu's lists. ARGV: group
LENGTHS = Script("""
local function number(...)
  local reply = redis.pcall(...)
  return type(reply) == 'number' and reply or 0
end
local waiting, held = 0, 0
for k = 3, #KEYS do
  waiting = waiting + number('LLEN', KEYS[k]) + number('XLEN', KEYS[k])
  local pending = redis.pcall('XPENDING', KEYS[k], ARGV[1])
  if not pending.err then held = held + pending[1] end
end
return {waiting - held, number('ZCARD', KEYS[1]), held, number('XLEN', KEYS[2])}
""")

#: Remove messages that no consumer has been given yet, at most a number of each key; return them.
#: KEYS: delayed, then streams, then kombu's lists. ARGV: group, number, number of lists
PURGE = Script("""
local left, lists = tonumber(ARGV[2]), tonumber(ARGV[3])
local gone = {}
for _, due in ipairs(redis.call('ZRANGE', KEYS[1], 0, left - 1)) do
  gone[#gone + 1] = due:match('^%d+:(.*)$') or due
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, left - 1)
for k = #KEYS - lists + 1, #KEYS do
  for _, message in ipairs(redis.call('LRANGE', KEYS[k], 0, left - 1)) do
    gone[#gone + 1] = message
  end
  redis.call('LTRIM', KEYS[k], left, -1)
end
for k = 2, #KEYS - lists do
  if redis.call('EXISTS', KEYS[k]) == 1 then
    local last = '-'
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[k])) do
      local about = {}
      for i = 1, #group, 2 do about[group[i]] = group[i + 1] end
      if about['name'] == ARGV[1] then last = '(' .. about['last-delivered-id'] end
    end
    for _, entry in ipairs(redis.call('XRANGE', KEYS[k], last, '+', 'COUNT', left)) do
      for i = 1, #entry[2], 2 do
        if entry[2][i] == 'message' then gone[#gone + 1] = entry[2][i + 1] end
      end
      redis.call('XDEL', KEYS[k], entry[1])
    end
  end
end
return gone
""")
