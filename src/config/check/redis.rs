//! `[redis]` -> [`RedisSettings`].

use std::time::Duration;

use super::rules::{between, not_empty};
use super::{Check, all};
use crate::config::StoreKind;
use crate::config::file::{self, List};
use crate::config::problem::Told;
use crate::config::read::{Field, SecretRef};
use crate::store::redis::{Address, Password, RedisSettings, Trust};

const ADDRESSES: &str = "the server, such as [\"redis.internal:6379\"]";
const KEY_PREFIX: &str = "portcullis:";
const MAX_PREFIX_BYTES: usize = 64;
/// As many as Redis can be configured to have.
const MAX_DATABASE: usize = 16_383;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

impl Check<'_> {
    /// The table, where the store is in Redis; elsewhere it would say nothing.
    pub(super) fn redis(
        &mut self,
        field: Field<file::Redis>,
        store: Option<StoreKind>,
    ) -> Result<Option<RedisSettings>, Told> {
        match store {
            Some(StoreKind::Redis) => {
                let settings = self.redis_settings(field.or_empty()?)?;
                self.warn_of_listeners(&settings);
                Ok(Some(settings))
            }
            Some(StoreKind::Disk | StoreKind::Memory) => {
                let addresses = field.or_empty()?.addresses;
                if !addresses.is_written() {
                    return Ok(None);
                }
                let problem = "has no effect without session.store = \"redis\"";
                Err(self.problems.add(&addresses.place, problem))
            }
            None => Ok(None),
        }
    }

    fn redis_settings(&mut self, table: file::Redis) -> Result<RedisSettings, Told> {
        let file::Redis {
            addresses,
            cluster,
            tls,
            ca_file,
            username,
            password,
            database,
            key_prefix,
            connections,
            connect_timeout,
            timeout,
        } = table;
        let cluster = cluster.or(false);
        let is_cluster = cluster == Ok(true);
        let addresses = self.addresses(addresses, is_cluster);
        let trust = self.trust(tls, ca_file);
        let has_password = password.is_written();
        let username = username.parse(&mut self.problems, not_empty);
        let username = username.check(&mut self.problems, |name| {
            if has_password { Ok(name) } else { Err("is a user without redis.password") }
        });
        let password = self.password(password);
        let problems = &mut self.problems;
        let only_zero =
            |number| if is_cluster && number != 0 { Err("is not 0, as in a cluster") } else { Ok(number) };
        let database = database.check(problems, between(0, MAX_DATABASE)).check(problems, only_zero).or(0);
        let key_prefix = key_prefix.parse(problems, prefix).or(KEY_PREFIX.to_owned());
        let connections = connections.check(problems, between(1, 64)).or(4);
        let connect = connect_timeout.check(problems, between(100 * MILLISECOND, MINUTE)).or(5 * SECOND);
        let timeout = timeout.check(problems, between(50 * MILLISECOND, MINUTE)).or(2 * SECOND);
        Ok(RedisSettings {
            addresses: addresses?,
            cluster: cluster?,
            tls: trust?,
            username: username.optional()?,
            password: password?,
            database: u32::try_from(database?).unwrap_or(0),
            key_prefix: key_prefix?,
            connections: connections?,
            connect_timeout: connect?,
            timeout: timeout?,
        })
    }

    fn addresses(&mut self, field: Field<List<String>>, is_cluster: bool) -> Result<Vec<Address>, Told> {
        let place = field.place.clone();
        let list = field.required(&mut self.problems, ADDRESSES)?;
        match list.len() {
            0 => return Err(self.problems.add(&place, format!("is empty: {ADDRESSES}"))),
            count if count > 1 && !is_cluster => {
                let problem = format!("lists {count}; one is wanted without redis.cluster = true");
                return Err(self.problems.add(&place, problem));
            }
            _ => {}
        }
        all(list
            .into_iter()
            .map(|entry| entry.parse(&mut self.problems, Address::parse).element(&mut self.problems)))
    }

    fn trust(&mut self, tls: Field<bool>, ca_file: Field<String>) -> Result<Option<Trust>, Told> {
        let tls = tls.or(false)?;
        if !tls && ca_file.is_written() {
            return Err(self.problems.add(&ca_file.place, "has no effect without redis.tls = true"));
        }
        let file = self.ca_file(ca_file)?;
        Ok(tls.then(|| file.map_or(Trust::System, Trust::File)))
    }

    fn password(&mut self, field: Field<SecretRef>) -> Result<Option<Password>, Told> {
        if !field.is_written() {
            return Ok(None);
        }
        self.secret(field, |found| Ok(Some(Password { value: found.one_line()?, file: found.file })))
    }

    /// Whoever listens on the way, or reaches the port, could take sessions over and sign people out.
    fn warn_of_listeners(&mut self, settings: &RedisSettings) {
        let Some(far) = settings.addresses.iter().find(|address| !address.is_loopback()) else { return };
        if settings.tls.is_none() {
            self.warnings
                .push(format!("redis.tls is false: what goes to {far} can be read and changed on the way"));
        }
        if settings.password.is_none() {
            self.warnings.push(format!("redis.password is missing: whoever reaches {far} can end sessions"));
        }
    }
}

/// Braces would decide where a cluster puts keys.
fn prefix(text: &str) -> Result<String, String> {
    let is_fine = |byte: u8| byte.is_ascii_graphic() && byte != b'{' && byte != b'}';
    if text.is_empty() || MAX_PREFIX_BYTES < text.len() || !text.bytes().all(is_fine) {
        return Err(format!("is not 1 to {MAX_PREFIX_BYTES} visible ASCII characters without braces"));
    }
    Ok(text.to_owned())
}
