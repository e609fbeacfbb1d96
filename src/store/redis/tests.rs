//! What the contract suite can't ask of every store, on real servers; and the ground that the suite stands on
//! here.

#[path = "../../../tests/it/support/ports.rs"]
#[expect(unreachable_pub, reason = "a file of the integration tests, too")]
mod ports;
#[path = "../../../tests/it/support/redis_server.rs"]
#[allow(dead_code, unreachable_pub, reason = "a file of the integration tests, too")]
mod redis_server;

use std::sync::LazyLock;

use self::redis_server::{RedisCluster, RedisServer};
use super::*;
use crate::secret::Secret;
use crate::store::contract::{Fixture, Ground};

const START: UnixTime = UnixTime::from_secs(1_000_000);
const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Moves everything below a prefix nearer to its end.
const JUMP: &str = "
local cursor = '0'
repeat
    local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1] .. '*', 'COUNT', 1000)
    cursor = page[1]
    for _, key in ipairs(page[2]) do
        if redis.call('TYPE', key).ok == 'zset' then
            for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
                redis.call('ZINCRBY', key, '-' .. ARGV[2], member)
            end
        end
        local left = redis.call('PTTL', key)
        if left >= 0 then redis.call('PEXPIRE', key, string.format('%.0f', left - tonumber(ARGV[2]))) end
    end
until cursor == '0'
";

const COUNT: &str = "
local cursor, keys = '0', 0
repeat
    local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1] .. '*', 'COUNT', 1000)
    cursor = page[1]
    keys = keys + #page[2]
until cursor == '0'
return keys
";

/// Servers that all tests of this process share, each below a prefix of its own.
static SINGLE: LazyLock<RedisServer> = LazyLock::new(RedisServer::start);
static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(RedisCluster::start);

/// Servers and a prefix on them.
struct Below {
    servers: Vec<&'static RedisServer>,
    prefix: String,
    clock: Clock,
}

impl Below {
    fn each<T>(&self, script: &str, by: &str) -> Vec<T>
    where
        T: redis::FromRedisValue,
    {
        let on = |server: &&RedisServer| {
            let mut connection = server.connection().unwrap();
            redis::cmd("EVAL").arg(script).arg(0).arg(&self.prefix).arg(by).query(&mut connection).unwrap()
        };
        self.servers.iter().map(on).collect()
    }
}

#[async_trait]
impl Ground for Below {
    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.each::<()>(JUMP, &by.as_millis().to_string());
        self.clock.advance(by);
    }

    async fn rows(&self) -> usize {
        self.each::<usize>(COUNT, "").into_iter().sum()
    }

    fn moment(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn lingers(&self) -> Duration {
        2 * SLACK
    }

    fn place(&self) -> Option<(String, Vec<String>)> {
        Some((self.prefix.clone(), self.servers.iter().map(|server| server.address()).collect()))
    }
}

fn fresh_prefix() -> String {
    format!("t-{}:", URL_SAFE_NO_PAD.encode(random_bytes::<9>().unwrap()))
}

fn settings(addresses: &[String]) -> RedisSettings {
    RedisSettings {
        addresses: addresses.iter().map(|address| Address::parse(address).unwrap()).collect(),
        cluster: addresses.len() > 1,
        tls: None,
        username: None,
        password: None,
        database: 0,
        key_prefix: fresh_prefix(),
        connections: 2,
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
    }
}

fn open(settings: &RedisSettings) -> RedisStore {
    RedisStore::open(settings.clone(), Clock::manual(START), &Handle::current()).unwrap()
}

fn fixture(settings: RedisSettings, servers: Vec<&'static RedisServer>) -> Fixture {
    let (clock, prefix) = (Clock::manual(START), settings.key_prefix.clone());
    let store = RedisStore::open(settings, clock.clone(), &Handle::current()).unwrap();
    Fixture { store: Arc::new(store), ground: Box::new(Below { servers, prefix, clock }) }
}

/// A fresh store on one server.
pub(crate) fn single() -> Fixture {
    fixture(settings(&[SINGLE.address()]), vec![&SINGLE])
}

/// A fresh store on a cluster.
pub(crate) fn cluster() -> Fixture {
    let addresses: Vec<_> = CLUSTER.servers.iter().map(RedisServer::address).collect();
    fixture(settings(&addresses), CLUSTER.servers.iter().collect())
}

/// The rule that the docs give to the gateway's user.
fn documented_rule() -> &'static str {
    let docs = include_str!("../../../docs/operations.md");
    docs.lines().find(|line| line.starts_with("user portcullis ")).expect("the docs have the rule")
}

static TLS: LazyLock<RedisServer> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap().keep();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    let rule = documented_rule().replace("portcullis:*", "t-*").replace("PASSWORD", "hunter2");
    let lines = format!(
        "save \"\"\nappendonly no\ntls-port {port}\ntls-cert-file {folder}/tls.crt\ntls-key-file {folder}/tls.key\n\
         tls-ca-cert-file {folder}/tls.crt\ntls-auth-clients no\n{rule}",
        port = ports::free(),
        folder = folder.display(),
    );
    RedisServer::with(&lines)
});

fn tls_settings() -> RedisSettings {
    let said = |name: &str| TLS.ask(&["CONFIG", "GET", name]).replace(name, "");
    let port: String = said("tls-port").chars().filter(char::is_ascii_digit).collect();
    let file = said("tls-ca-cert-file");
    let file = file
        .chars()
        .skip_while(|letter| *letter != '/')
        .take_while(|letter| *letter != '"' && *letter != '\'');
    let value = Secret::new("hunter2".to_owned());
    RedisSettings {
        tls: Some(Trust::File(file.collect::<String>().into())),
        username: Some("portcullis".to_owned()),
        password: Some(Password { value, file: None }),
        ..settings(&[format!("127.0.0.1:{port}")])
    }
}

/// A fresh store over TLS, as the user that the docs give.
pub(crate) fn tls() -> Fixture {
    fixture(tls_settings(), vec![&TLS])
}

fn key(n: usize) -> StoreKey {
    StoreKey::derive("test", &[&n.to_be_bytes()])
}

fn index(n: usize) -> Index {
    Index::of_sub("https://op.test", &n.to_string())
}

fn record(n: usize, indexes: &[Index]) -> Record {
    Record { key: key(n), indexes: indexes.to_vec(), payload: Bytes::from_static(b"sealed") }
}

/// Waits until something is so; fails if it isn't in half a minute.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Every operation that asks the server, and what went wrong with it.
async fn every_error(store: &RedisStore) -> Vec<StoreError> {
    let lease = Lease { key: key(1), fence: 1 };
    let errors = [
        store.get(key(1)).await.err(),
        store.put(record(1, &[index(1)]), HOUR).await.err(),
        store.replace(record(1, &[]), HOUR, 1, None).await.err(),
        store.remove(key(1)).await.err(),
        store.find_by(index(1)).await.err(),
        store.remove_by(index(1), None).await.err(),
        store.mark(key(1), HOUR).await.err(),
        store.is_marked(key(1)).await.err(),
        store.put_once(key(1), HOUR).await.err(),
        store.lease(key(1), HOUR).await.err(),
        store.extend(&lease, HOUR).await.err(),
        store.release(lease).await.err(),
        store.list(None, 10).await.err(),
        store.ping().await.err(),
    ];
    errors.into_iter().flatten().collect()
}

const OPERATIONS: usize = 14;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_an_error_and_its_return_needs_no_restart() {
    let mut server = RedisServer::durable();
    let store = open(&settings(&[server.address()]));
    store.put(record(1, &[index(1)]), HOUR).await.unwrap();
    server.kill9();
    until("an outage is noticed", async || store.get(key(1)).await.is_err()).await;
    let errors = every_error(&store).await;
    assert_eq!(errors.len(), OPERATIONS, "{errors:?}");
    for error in &errors {
        assert!(error.to_string().contains(&server.address()), "{error}");
    }
    server.restart();
    until("it is back", async || store.ping().await.is_ok()).await;
    assert_eq!(store.get(key(1)).await.unwrap().unwrap().record, record(1, &[index(1)]));
    assert_eq!(store.find_by(index(1)).await.unwrap(), [(key(1), 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_opens_before_its_server_is_there() {
    let mut server = RedisServer::start();
    server.kill9();
    let store = open(&settings(&[server.address()]));
    let error = store.get(key(1)).await.unwrap_err();
    assert!(error.reason.contains("refused"), "{error}");
    server.restart();
    until("it is there", async || store.put(record(1, &[]), HOUR).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_costs_a_request_its_timeout_and_later_ones_nothing() {
    let server = RedisServer::start();
    let short = Duration::from_millis(500);
    let settings = RedisSettings { timeout: short, connect_timeout: short, ..settings(&[server.address()]) };
    let store = open(&settings);
    store.put(record(1, &[]), HOUR).await.unwrap();
    server.pause();
    let begun = tokio::time::Instant::now();
    let error = store.get(key(1)).await.unwrap_err();
    assert!(error.reason.ends_with("does not answer within 500ms"), "{error}");
    assert!(begun.elapsed() < 8 * short, "{:?}", begun.elapsed());
    until("nobody waits any more", async || {
        let begun = tokio::time::Instant::now();
        store.get(key(1)).await.is_err() && begun.elapsed() < short / 2
    })
    .await;
    server.resume();
    until("it goes on", async || matches!(store.get(key(1)).await, Ok(Some(_)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_takes_no_writes_and_says_so_and_reads_go_on() {
    let server = RedisServer::start();
    let store = open(&settings(&[server.address()]));
    store.put(record(1, &[index(1)]), HOUR).await.unwrap();
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    for error in [
        store.put(record(2, &[index(1)]), HOUR).await.unwrap_err(),
        store.put_once(key(2), HOUR).await.unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert!(error.reason.ends_with("is out of memory: maxmemory is reached (OOM)"), "{error}");
    }
    assert!(store.get(key(1)).await.unwrap().is_some());
    assert!(store.remove(key(1)).await.unwrap(), "who signs out is signed out");
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(store.get(key(2)).await.unwrap(), None, "nothing was written");
    store.put(record(2, &[index(1)]), HOUR).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_not_asked() {
    let server = RedisServer::start();
    let store = open(&settings(&[server.address()]));
    store.put(record(1, &[]), HOUR).await.unwrap();
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = store.put(record(2, &[]), HOUR).await.unwrap_err();
    assert!(error.reason.ends_with("is a replica and takes no writes (READONLY)"), "{error}");
    until("no read either", async || {
        let error = store.get(key(1)).await.err();
        error.is_some_and(|error| error.reason.ends_with("is a replica and takes no writes"))
    })
    .await;
    server.ask(&["REPLICAOF", "NO", "ONE"]);
    until("it is a master again", async || matches!(store.get(key(1)).await, Ok(Some(_)))).await;
    assert_eq!(store.get(key(2)).await.unwrap(), None, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_and_a_new_one_in_its_file_is_taken() {
    let server = RedisServer::with("save \"\"\nuser gate on >right ~* &* +@all");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "wrong").unwrap();
    let password = Password { value: Secret::new("older".to_owned()), file: Some(file.clone()) };
    let username = Some("gate".to_owned());
    let store = open(&RedisSettings { username, password: Some(password), ..settings(&[server.address()]) });
    let error = store.get(key(1)).await.unwrap_err();
    assert!(error.reason.contains("refuses the user name or the password"), "{error}");
    assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    std::fs::write(&file, "right").unwrap();
    until("the new password is used", async || store.get(key(1)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_is_told_without_what() {
    let server = RedisServer::with("save \"\"\nuser gate on >right ~* &* +ping +get");
    let password = Some(Password { value: Secret::new("right".to_owned()), file: None });
    let username = Some("gate".to_owned());
    let store = open(&RedisSettings { username, password, ..settings(&[server.address()]) });
    let error = store.get(key(1)).await.unwrap_err();
    assert!(error.reason.ends_with("ACL LOG on the server says what (NOPERM)"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_authority_that_is_not_ones_own_is_refused() {
    let right = tls_settings();
    let stranger = tempfile::tempdir().unwrap();
    let key_pair = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key_pair).unwrap();
    let file = stranger.path().join("ca.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let cases = [
        ("another authority", Some(Trust::File(file)), "TLS with Redis"),
        ("those of the machine", Some(Trust::System), "TLS with Redis"),
        ("no file", Some(Trust::File("/nowhere.pem".into())), "the CA file /nowhere.pem"),
        ("no TLS", None, "Redis at 127.0.0.1"),
    ];
    for (name, trust, expected) in cases {
        let store = open(&RedisSettings { tls: trust, ..right.clone() });
        let error = store.get(key(1)).await.unwrap_err();
        assert!(error.reason.starts_with(expected) || name == "those of the machine", "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_everything_has_no_sessions_and_works_on() {
    let server = RedisServer::start();
    let store = open(&settings(&[server.address()]));
    store.put(record(1, &[index(1)]), HOUR).await.unwrap();
    let lease = store.lease(key(1), HOUR).await.unwrap().unwrap();
    server.ask(&["FLUSHALL"]);
    server.ask(&["SCRIPT", "FLUSH"]);
    assert_eq!(store.get(key(1)).await.unwrap(), None);
    assert_eq!(store.find_by(index(1)).await.unwrap(), []);
    let replaced = store.replace(record(1, &[]), HOUR, 1, Some(&lease)).await.unwrap();
    assert_eq!(replaced, Replaced::Gone);
    assert!(!store.extend(&lease, HOUR).await.unwrap());
    let later = store.lease(key(1), HOUR).await.unwrap().unwrap();
    assert!(lease.fence < later.fence, "fences grow over all that was forgotten");
    store.put(record(1, &[index(1)]), HOUR).await.unwrap();
    assert_eq!(store.find_by(index(1)).await.unwrap(), [(key(1), 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_grows_though_the_clock_went_back() {
    let store = open(&settings(&[SINGLE.address()]));
    store.put(record(1, &[]), HOUR).await.unwrap();
    // As a lease under a clock that was years ahead has left it.
    let name = store.names.record(key(1));
    let mut connection = SINGLE.connection().unwrap();
    let future = "8000000000000000";
    redis::cmd("SETRANGE").arg(&name.text).arg(9).arg(future).exec(&mut connection).unwrap();
    let first = store.lease(key(1), HOUR).await.unwrap().unwrap();
    assert_eq!(first.fence, 8_000_000_000_000_001);
    store.replace(record(1, &[]), HOUR, 1, Some(&first)).await.unwrap();
    store.release(first.clone()).await.unwrap();
    assert!(first.fence < store.lease(key(1), HOUR).await.unwrap().unwrap().fence, "also after a replace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_forgets_sessions_is_found() {
    let server = RedisServer::start();
    let store = open(&settings(&[server.address()]));
    assert_eq!(store.eviction().await.unwrap(), None);
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let problem = store.eviction().await.unwrap().unwrap();
    assert!(problem.contains("maxmemory-policy allkeys-lru"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_its_record_is_nothing_and_is_gone_in_time() {
    for fixture in [single(), cluster()] {
        let Fixture { ground, .. } = &fixture;
        let settings = fixture_settings(&fixture);
        let store = open(&settings);
        // A gateway that died between its two steps.
        store.prepare(&record(1, &[index(1)]), 1, MINUTE).await.map(drop).unwrap();
        store.put(record(2, &[index(1)]), MINUTE).await.unwrap();
        assert_eq!(ground.rows().await, 2);
        assert_eq!(store.find_by(index(1)).await.unwrap(), [(key(2), 1)]);
        assert_eq!(store.remove_by(index(1), None).await.unwrap(), [key(2)]);
        assert_eq!(store.find_by(index(1)).await.unwrap(), []);
        ground.advance(MINUTE + 2 * SLACK).await;
        assert_eq!(ground.rows().await, 0);
    }
}

/// Settings that lead to what a fixture stands on.
fn fixture_settings(fixture: &Fixture) -> RedisSettings {
    let (prefix, addresses) = fixture.ground.place().expect("it is in Redis");
    RedisSettings { key_prefix: prefix, ..settings(&addresses) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_server_does_late_does_not_outlive_its_members() {
    let store = open(&settings(&[SINGLE.address()]));
    let write = store.prepare(&record(1, &[index(1)]), 1, HOUR).await.unwrap();
    let latest: u64 = write.latest.parse().unwrap();
    let cases = [
        ("in time", latest, Some(HOUR)),
        ("almost too late", latest - 3_600_000, Some(SLACK)),
        ("too late", latest - 3_600_000 - 30_000, None),
    ];
    for (name, latest, lives) in cases {
        let late =
            Write { latest: latest.to_string(), ..store.prepare(&record(1, &[]), 1, HOUR).await.unwrap() };
        let args = late.args(&store.channel);
        let _old: Vec<u8> = store.run(&PUT, &[&store.names.record(key(1))], &args).await.unwrap();
        let found = store.get(key(1)).await.unwrap().map(|stored| stored.expires_at.since(START));
        assert_eq!(found.is_some(), lives.is_some(), "{name}: {found:?}");
        assert!(
            found <= lives && lives.unwrap_or_default() <= found.unwrap_or_default() + MINUTE / 3,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_index_never_misses_a_record_that_is_written_all_the_time() {
    for fixture in [single(), cluster()] {
        let store = fixture.store;
        store.put(record(1, &[index(1)]), HOUR).await.unwrap();
        let writer = Arc::clone(&store);
        let mut writing = tokio::task::JoinSet::new();
        writing.spawn(async move {
            for version in 1..300 {
                let indexes = if version % 2 == 0 { vec![index(1)] } else { vec![index(2), index(1)] };
                let replaced = writer.replace(record(1, &indexes), HOUR, version, None).await.unwrap();
                assert_eq!(replaced, Replaced::Done(version + 1));
            }
        });
        let mut looks = 0;
        while writing.try_join_next().is_none() {
            let found = store.find_by(index(1)).await.unwrap();
            assert!(matches!(found.as_slice(), [(found, _)] if *found == key(1)), "{found:?}");
            looks += 1;
        }
        assert!(looks > 10, "{looks}");
        assert_eq!(store.find_by(index(2)).await.unwrap(), [(key(1), 300)]);
        assert_eq!(store.remove_by(index(2), Some(index(1))).await.unwrap(), [key(1)]);
        assert_eq!(fixture.ground.rows().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_removers_of_one_key_leave_no_record_that_its_indexes_miss() {
    for fixture in [single(), cluster()] {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..6 {
            let store = Arc::clone(&fixture.store);
            tasks.spawn(async move {
                for round in 0..60 {
                    let indexes = [index(task % 2), index(2)];
                    match (task + round) % 3 {
                        0 => store.put(record(1, &indexes), HOUR).await.unwrap(),
                        1 => drop(store.replace(record(1, &indexes), HOUR, 1, None).await.unwrap()),
                        _ => drop(store.remove(key(1)).await.unwrap()),
                    }
                }
            });
        }
        tasks.join_all().await;
        fixture.store.put_once(key(9), HOUR).await.unwrap();
        match fixture.store.get(key(1)).await.unwrap() {
            None => assert_eq!(fixture.store.find_by(index(2)).await.unwrap(), []),
            Some(stored) => {
                for index in &stored.record.indexes {
                    let found = fixture.store.find_by(*index).await.unwrap();
                    assert_eq!(found, [(key(1), stored.version)]);
                }
                assert!(fixture.store.remove(key(1)).await.unwrap());
            }
        }
        assert_eq!(fixture.ground.rows().await, 1, "the mark, and no member too many");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_thousands_of_sessions_is_signed_out_at_once() {
    for fixture in [single(), cluster()] {
        let store = fixture.store;
        for numbers in (0..2000).collect::<Vec<usize>>().chunks(200) {
            let puts = numbers.iter().map(|n| store.put(record(*n, &[index(0), index(n + 1)]), HOUR));
            futures::future::try_join_all(puts).await.unwrap();
        }
        assert_eq!(store.find_by(index(0)).await.unwrap().len(), 2000);
        let mut removed = store.remove_by(index(0), None).await.unwrap();
        removed.sort_unstable();
        removed.dedup();
        assert_eq!(removed.len(), 2000);
        assert_eq!(fixture.ground.rows().await, 0);
    }
}

/// The next change, within the time of a test.
async fn next(feed: &mut broadcast::Receiver<Change>) -> Change {
    tokio::time::timeout(Duration::from_secs(30), feed.recv()).await.expect("a change is told").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_gateway_hears_of_each_write_and_this_one_does_not() {
    for fixture in [single(), cluster(), tls()] {
        let settings = if fixture.ground.place().is_some_and(|(_, at)| at == [TLS.address()]) {
            RedisSettings { key_prefix: fixture.ground.place().unwrap().0, ..tls_settings() }
        } else {
            fixture_settings(&fixture)
        };
        // Each feed is listened to at once: what it says first is said once.
        let own = open(&settings);
        let mut own_feed = own.changes().unwrap();
        let other = open(&settings);
        let mut feed = other.changes().unwrap();
        assert_eq!(next(&mut own_feed).await, Change::Missed, "nothing was heard before");
        assert_eq!(next(&mut feed).await, Change::Missed);
        own.put(record(1, &[index(1)]), HOUR).await.unwrap();
        own.replace(record(1, &[index(1)]), HOUR, 7, None).await.unwrap();
        own.replace(record(1, &[index(1)]), HOUR, 1, None).await.unwrap();
        own.remove(key(1)).await.unwrap();
        own.remove(key(1)).await.unwrap();
        own.put(record(2, &[index(1)]), HOUR).await.unwrap();
        own.remove_by(index(1), None).await.unwrap();
        own.put(record(3, &[]), Duration::ZERO).await.unwrap();
        let expected = [
            Change::Written(key(1)),
            Change::Written(key(1)),
            Change::Removed(key(1)),
            Change::Written(key(2)),
            Change::Removed(key(2)),
            Change::Removed(key(3)),
        ];
        let mut heard = Vec::new();
        for _ in 0..expected.len() {
            heard.push(next(&mut feed).await);
        }
        if settings.cluster {
            // Changes of different keys come from different servers, so in any order.
            heard.sort_by_key(|change| expected.iter().position(|expected| expected == change));
            assert_eq!(heard.len(), expected.len());
            assert!(expected.iter().all(|expected| heard.contains(expected)), "{heard:?}");
        } else {
            assert_eq!(heard, expected);
        }
        other.put(record(4, &[]), HOUR).await.unwrap();
        assert_eq!(next(&mut own_feed).await, Change::Written(key(4)), "and nothing of its own before");
        assert!(feed.try_recv().is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_was_interrupted_says_so_and_goes_on() {
    let server = RedisServer::start();
    let settings = settings(&[server.address()]);
    let (own, other) = (open(&settings), open(&settings));
    let mut feed = other.changes().unwrap();
    assert_eq!(next(&mut feed).await, Change::Missed);
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(next(&mut feed).await, Change::Missed, "after a lost connection");
    own.put(record(1, &[]), HOUR).await.unwrap();
    assert_eq!(next(&mut feed).await, Change::Written(key(1)));
    server.pause();
    sleep(Duration::from_secs(6)).await;
    server.resume();
    assert_eq!(next(&mut feed).await, Change::Missed, "after a silence");
    until("writes go on", async || own.put(record(2, &[]), HOUR).await.is_ok()).await;
    assert_eq!(next(&mut feed).await, Change::Written(key(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_server_that_is_part_of_a_cluster_is_told() {
    let store = open(&settings(&[CLUSTER.servers[0].address()]));
    let mut reasons = Vec::new();
    for n in 0..20 {
        reasons.extend(store.get(key(n)).await.err().map(|error| error.reason));
    }
    assert!(!reasons.is_empty());
    assert!(reasons.iter().all(|reason| reason.ends_with("set redis.cluster = true (MOVED)")), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_none_is_told() {
    let store = open(&RedisSettings { cluster: true, ..settings(&[SINGLE.address()]) });
    let error = store.get(key(1)).await.unwrap_err();
    assert!(error.reason.contains("answers with an error (ERR)"), "{error}");
}

fn id_of(server: &RedisServer) -> String {
    server.ask(&["CLUSTER", "MYID"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_move_within_a_cluster_are_followed() {
    let cluster = RedisCluster::start();
    let addresses: Vec<_> = cluster.servers.iter().map(RedisServer::address).collect();
    let store = open(&settings(&addresses));
    let n = (0..1000).find(|n| store.names.record(key(*n)).slot <= 5460).unwrap();
    let slot = store.names.record(key(n)).slot.to_string();
    let (from, to) = (&cluster.servers[0], &cluster.servers[1]);
    store.ping().await.unwrap();
    let cursor = store.list(None, 1).await.unwrap().next.unwrap();
    to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id_of(from)]);
    from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id_of(to)]);
    store.put(record(n, &[index(1)]), HOUR).await.unwrap();
    assert_eq!(to.ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "1", "it was asked for where it will be");
    assert_eq!(store.get(key(n)).await.unwrap().unwrap().record, record(n, &[index(1)]));
    for server in [to, from, &cluster.servers[2]] {
        server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &id_of(to)]);
    }
    let replaced = store.replace(record(n, &[index(1)]), HOUR, 1, None).await.unwrap();
    assert_eq!(replaced, Replaced::Done(2), "it has moved");
    assert_eq!(store.find_by(index(1)).await.unwrap(), [(key(n), 2)]);
    until("a walk that began before begins again", async || {
        let error = store.list(Some(cursor.clone()), 1).await.err();
        error.is_some_and(|error| error.reason.contains("begin again"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lost_a_server_is_an_outage_until_it_is_back() {
    let mut cluster = RedisCluster::start();
    let addresses: Vec<_> = cluster.servers.iter().map(RedisServer::address).collect();
    let short = Duration::from_secs(2);
    let store = open(&RedisSettings { timeout: short, connect_timeout: short, ..settings(&addresses) });
    let all: Vec<usize> = (0..30).collect();
    for n in &all {
        store.put(record(*n, &[index(0)]), HOUR).await.unwrap();
    }
    cluster.servers[1].kill9();
    let mut failed = 0;
    for n in &all {
        match store.get(key(*n)).await {
            Ok(found) => assert!(found.is_some(), "absent is never an outage"),
            Err(_) => failed += 1,
        }
    }
    assert!(failed > 0);
    store.remove_by(index(0), None).await.unwrap_err();
    cluster.servers[1].restart();
    cluster.wait_until_ok();
    until("it is back", async || {
        let ok = futures::future::join_all(all.iter().map(|n| store.get(key(*n)))).await;
        ok.iter().all(Result::is_ok)
    })
    .await;
    store.put(record(99, &[index(0)]), HOUR).await.unwrap();
    store.remove_by(index(0), None).await.unwrap();
    assert_eq!(store.find_by(index(0)).await.unwrap(), []);
}
