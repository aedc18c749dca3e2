-- One decision of the limits on one hash, so that what is known of them is there as a whole or not at all.
-- KEYS[1] the books. ARGV[1] take, rejoin or look; [2] grace in microseconds; [3] life of the books in milliseconds.
-- Fields: '=run' the server that wrote them, '=since' when counting begins (nothing is known of the time before),
-- '=seen' the last decision; every other field is a bucket 'tat:window:current:previous'.
-- Whole microseconds stay below 2^53, so Lua's doubles hold them exactly.
local key = KEYS[1]
local op, grace = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function whole(number) return string.format('%.0f', number) end

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local head = redis.call('HMGET', key, '=run', '=since', '=seen')
local since, seen = tonumber(head[2]), tonumber(head[3]) or 0
local function reopen()
  since = now + grace
  redis.call('HSET', key, '=run', run, '=since', whole(since))
  redis.call('PEXPIRE', key, ARGV[3])
end
-- Lost (flushed, evicted, restarted empty), perhaps in part (restarted, failed over), or of a clock that went back.
if head[1] ~= run or not since or since > now + grace then reopen() end

local function read(field, window)
  local raw = redis.call('HGET', key, field)
  local tat, at, current, previous = 0, 0, 0, 0
  if raw then
    tat, at, current, previous = string.match(raw, '^(%-?%d+):(%-?%d+):(%d+):(%d+)$')
    tat, at, current, previous = tonumber(tat), tonumber(at), tonumber(current), tonumber(previous)
  end
  local this = math.floor(now / window)
  if this - at == 1 then
    at, current, previous = this, 0, current
  elseif this - at > 1 then
    at, current, previous = this, 0, 0
  end
  return { tat, at, current, previous }
end
local function write(field, bucket)
  redis.call('HSET', key, field,
    whole(bucket[1]) .. ':' .. whole(bucket[2]) .. ':' .. whole(bucket[3]) .. ':' .. whole(bucket[4]))
  redis.call('PEXPIRE', key, ARGV[3])
end

if op == 'look' then
  local answer = { 0, now }
  for i = 4, #ARGV, 2 do
    for _, number in ipairs(read(ARGV[i], tonumber(ARGV[i + 1]))) do answer[#answer + 1] = number end
  end
  return answer
end

if op == 'rejoin' then
  -- Nobody was served while the caller was away, and nobody began anew: others were away too, and their local shares
  -- still run.
  local left = now - tonumber(ARGV[4])
  if left < now and seen < left and since < left then reopen() end
  for i = 5, #ARGV, 4 do
    local bucket = read(ARGV[i], tonumber(ARGV[i + 2]))
    local calls = tonumber(ARGV[i + 3])
    bucket[1] = math.max(bucket[1], now) + calls * tonumber(ARGV[i + 1])
    bucket[3] = bucket[3] + calls
    write(ARGV[i], bucket)
  end
  if now < since then return { 2, now, since - now } end
  return { 3, now }
end

if now < since then return { 2, now, since - now } end
local taken = {}
for i = 4, #ARGV, 5 do
  local interval, burst = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 3])
  local usable = math.max(burst - tonumber(ARGV[i + 4]), 1)
  local bucket = read(ARGV[i], tonumber(ARGV[i + 2]))
  -- What was not known at '=since' was empty then, never full.
  local tat = math.max(bucket[1], since + burst * interval)
  tat = math.max(tat, now) + interval
  local room = now + usable * interval
  if tat > room then
    redis.call('HSET', key, '=seen', whole(now))
    return { 1, now, (i - 4) / 5, tat - room }
  end
  bucket[1], bucket[3] = tat, bucket[3] + 1
  taken[#taken + 1] = bucket
end
local answer = { 0, now }
for position, bucket in ipairs(taken) do
  write(ARGV[4 + (position - 1) * 5], bucket)
  for _, number in ipairs(bucket) do answer[#answer + 1] = number end
end
redis.call('HSET', key, '=seen', whole(now))
return answer
