//! What must be done in one step, in Lua. Every key stands in KEYS, and those of one script share a slot.
//!
//! Times are milliseconds as text, `forever` for what does not end. Offsets are those of `layout`: a
//! record is format 1, version 2-9, fence 10-25, id of the write 26-41, number of indexes 42-43, indexes,
//! payload (counted from 1).

use std::sync::LazyLock;

/// A script and its SHA-1, under which a server keeps it.
#[derive(Debug)]
pub(super) struct Lua {
    pub(super) text: String,
    pub(super) hash: String,
}

impl Lua {
    fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

const NOW: &str = "
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
";

/// What stands before a record's payload; nothing where there is no record.
const HEAD: &str = "
local function head(key)
    local fixed = redis.call('GETRANGE', key, 0, 42)
    if fixed == '' then return '' end
    local indexes = fixed:byte(42) * 256 + fixed:byte(43)
    return fixed .. redis.call('GETRANGE', key, 43, 42 + 32 * indexes)
end
";

/// Writes a record over an old one, for `ttl` and not beyond `latest`; what has no time is removed.
const WRITE: &str = "
local function write(key, old, before, after, ttl, latest, channel, written, removed)
    local fence = '0000000000000000'
    if old ~= '' then fence = old:sub(10, 25) end
    if ttl ~= 'forever' then
        ttl = tonumber(ttl)
        if latest ~= 'forever' then ttl = math.min(ttl, tonumber(latest) - now()) end
        if ttl <= 0 then
            redis.call('DEL', key)
            redis.call('PUBLISH', channel, removed)
            return
        end
        redis.call('SET', key, before .. fence .. after, 'PX', string.format('%.0f', ttl))
    else
        redis.call('SET', key, before .. fence .. after)
    end
    redis.call('PUBLISH', channel, written)
end
";

/// KEYS: record. The record and the milliseconds that it has left (-1: forever), or nothing.
pub(super) static GET: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&["
local record = redis.call('GET', KEYS[1])
if not record then return false end
return {record, redis.call('PTTL', KEYS[1])}
"])
});

/// KEYS: record. Its head.
pub(super) static LOOK: LazyLock<Lua> = LazyLock::new(|| Lua::new(&[HEAD, "return head(KEYS[1])"]));

/// KEYS: record. ARGV: before, after, ttl, latest, channel, written, removed. The head of the old record.
pub(super) static PUT: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&[
        NOW,
        HEAD,
        WRITE,
        "
local old = head(KEYS[1])
write(KEYS[1], old, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
return old
",
    ])
});

/// KEYS: record, the lease where one must be held. ARGV: as PUT, then the expected version and the fence that must be held, or nothing.
/// `gone`, `conflict`, or `done` and the head of the old record.
pub(super) static REPLACE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&[
        NOW,
        HEAD,
        WRITE,
        "
local old = head(KEYS[1])
if old == '' then return {'gone'} end
if old:sub(2, 9) ~= ARGV[8] then return {'conflict'} end
if ARGV[9] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[9] then return {'conflict'} end
write(KEYS[1], old, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
return {'done', old}
",
    ])
});

/// KEYS: record. ARGV: channel, removed, indexes that the record must have. The head of what was removed.
pub(super) static TAKE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&[
        HEAD,
        "
local old = head(KEYS[1])
if old == '' then return '' end
for wanted = 3, #ARGV do
    local found = false
    for at = 44, #old, 32 do
        if old:sub(at, at + 31) == ARGV[wanted] then found = true end
    end
    if not found then return '' end
end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return old
",
    ])
});

/// KEYS: index. ARGV: member, ttl, slack. Drops members that have ended and adds one for `ttl` and twice the
/// slack; until when the record may live: a slack less than its member.
pub(super) static JOIN: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&[
        NOW,
        "
local now = now()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if ARGV[2] == 'forever' then
    redis.call('ZADD', KEYS[1], '+inf', ARGV[1])
    redis.call('PERSIST', KEYS[1])
    return 'forever'
end
local latest = now + tonumber(ARGV[2]) + tonumber(ARGV[3])
redis.call('ZADD', KEYS[1], string.format('%.0f', latest + tonumber(ARGV[3])), ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
if last ~= 'inf' then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', tonumber(last) - now))
end
return string.format('%.0f', latest)
",
    ])
});

/// KEYS: mark. ARGV: ttl.
pub(super) static MARK: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&["
local left = redis.call('PTTL', KEYS[1])
if left == -1 then return 0 end
if ARGV[1] == 'forever' then
    redis.call('SET', KEYS[1], '1')
elseif left < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return 1
"])
});

/// KEYS: lease, record. ARGV: ttl. The fence, or nothing. It is the time in microseconds, and later than the
/// last one that the record has seen, whatever the clock does.
pub(super) static LEASE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&["
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local time = redis.call('TIME')
local fence = time[1] * 1000000 + time[2]
local last = redis.call('GETRANGE', KEYS[2], 9, 24)
if last ~= '' then fence = math.max(fence, tonumber(last) + 1) end
fence = string.format('%016.0f', fence)
if ARGV[1] == 'forever' then
    redis.call('SET', KEYS[1], fence)
else
    redis.call('SET', KEYS[1], fence, 'PX', ARGV[1])
end
if last ~= '' then redis.call('SETRANGE', KEYS[2], 9, fence) end
return fence
"])
});

/// KEYS: lease. ARGV: fence, ttl. Whether it is still held.
pub(super) static EXTEND: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&["
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local left = redis.call('PTTL', KEYS[1])
if ARGV[2] == 'forever' then
    redis.call('PERSIST', KEYS[1])
elseif left >= 0 and left < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
"])
});

/// KEYS: lease. ARGV: fence.
pub(super) static RELEASE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&["
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"])
});

/// KEYS: rate. ARGV: how many, the milliseconds after which one is regained, `1` to take one. The milliseconds
/// until there is one. The time that the key has left is the time until all are regained: one more for each taken.
pub(super) static TAKE_OF_RATE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&["
local period = tonumber(ARGV[2])
local span = tonumber(ARGV[1]) * period
local left = math.min(math.max(redis.call('PTTL', KEYS[1]), 0), span)
local wait = left + period - span
if wait > 0 then return wait end
if ARGV[3] == '1' then redis.call('SET', KEYS[1], '1', 'PX', string.format('%.0f', left + period)) end
return 0
"])
});

/// KEYS: a key of its own. Writes and leaves nothing behind.
pub(super) static PROBE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(&["
redis.call('SET', KEYS[1], '1', 'PX', 1000)
redis.call('DEL', KEYS[1])
return 1
"])
});
