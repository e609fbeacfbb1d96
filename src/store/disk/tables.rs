//! The tables of the database, and every change to them.
//!
//! Each function leaves the tables consistent with each other: a record has one row for each of its
//! indexes, and everything that ends has one row in `ends`. They run inside one transaction, so that
//! either all of their rows are written or none.

use bytes::Bytes;
use redb::{
    Error, ReadTransaction, ReadableTable, ReadableTableMetadata as _, Table, TableDefinition,
    WriteTransaction,
};

use crate::clock::UnixTime;
use crate::store::{Cursor, Index, Lease, Page, Record, StoreKey, Stored};

type Hash = &'static [u8; 32];

/// Version, end, indexes, payload.
type RecordRow = (u64, u64, Vec<Hash>, &'static [u8]);

/// What the file holds; one more with every change that older programs could not read.
pub(super) const FORMAT: u64 = 1;

/// `format`: [`FORMAT`]. `fence`: the last fence that was granted.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
pub(super) const RECORDS: TableDefinition<Hash, RecordRow> = TableDefinition::new("records");
pub(super) const BY_INDEX: TableDefinition<(Hash, Hash), ()> = TableDefinition::new("by_index");
pub(super) const MARKS: TableDefinition<Hash, u64> = TableDefinition::new("marks");
/// Fence and end.
pub(super) const LEASES: TableDefinition<Hash, (u64, u64)> = TableDefinition::new("leases");
/// Everything above with its end, soonest first.
pub(super) const ENDS: TableDefinition<(u64, u8, Hash), ()> = TableDefinition::new("ends");

/// How much room there has to be: several sessions of common size.
const ROOM_BYTES: usize = 64 << 10;

// What a row of `ends` is about.
const RECORD: u8 = 0;
const MARK: u8 = 1;
const LEASE: u8 = 2;

/// The tables as the writer sees them.
pub(super) struct Tables<'txn> {
    meta: Table<'txn, &'static str, u64>,
    records: Table<'txn, Hash, RecordRow>,
    by_index: Table<'txn, (Hash, Hash), ()>,
    marks: Table<'txn, Hash, u64>,
    leases: Table<'txn, Hash, (u64, u64)>,
    ends: Table<'txn, (u64, u8, Hash), ()>,
}

impl<'txn> Tables<'txn> {
    /// Opens the tables, and makes those that are not there yet.
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            records: transaction.open_table(RECORDS)?,
            by_index: transaction.open_table(BY_INDEX)?,
            marks: transaction.open_table(MARKS)?,
            leases: transaction.open_table(LEASES)?,
            ends: transaction.open_table(ENDS)?,
        })
    }

    /// Says in the file what it holds.
    pub(super) fn stamp(&mut self) -> Result<(), Error> {
        self.meta.insert("format", FORMAT)?;
        Ok(())
    }

    /// The version of a live record.
    pub(super) fn version(&self, key: StoreKey, now: UnixTime) -> Result<Option<u64>, Error> {
        let row = self.records.get(&key.0)?;
        Ok(row.as_ref().and_then(|row| live(key, row.value(), now)).map(|row| row.version))
    }

    /// Writes a record over whatever was there.
    pub(super) fn store(&mut self, record: &Record, version: u64, ends_at: UnixTime) -> Result<(), Error> {
        let (key, ends_at) = (&record.key.0, ends_at.as_millis());
        self.take(record.key)?;
        for index in &record.indexes {
            self.by_index.insert((&index.0, key), ())?;
        }
        self.ends.insert((ends_at, RECORD, key), ())?;
        let indexes: Vec<_> = record.indexes.iter().map(|index| &index.0).collect();
        self.records.insert(key, (version, ends_at, indexes, &*record.payload))?;
        Ok(())
    }

    /// Writes a large record and takes it away again, in one transaction: where that works there is
    /// room for the next sign-in.
    pub(super) fn try_room(&mut self) -> Result<(), Error> {
        let key = StoreKey::derive("room", &[]);
        let record = Record { key, indexes: Vec::new(), payload: vec![0; ROOM_BYTES].into() };
        self.store(&record, 1, UnixTime::MAX)?;
        self.take(key).map(drop)
    }

    /// Removes a record and every trace of it; says when it would have ended.
    pub(super) fn take(&mut self, key: StoreKey) -> Result<Option<UnixTime>, Error> {
        let Some((ends_at, indexes)) = self.records.remove(&key.0)?.map(|row| {
            let (_, ends_at, indexes, _) = row.value();
            (ends_at, indexes.into_iter().copied().collect::<Vec<_>>())
        }) else {
            return Ok(None);
        };
        for index in &indexes {
            self.by_index.remove((index, &key.0))?;
        }
        self.ends.remove((ends_at, RECORD, &key.0))?;
        Ok(Some(UnixTime::from_millis(ends_at)))
    }

    /// Removes the live records under an index, or under both.
    pub(super) fn take_by(
        &mut self,
        index: Index,
        and: Option<Index>,
        now: UnixTime,
    ) -> Result<Vec<StoreKey>, Error> {
        let mut keys = Vec::new();
        for_each_under(&self.by_index, &self.records, index, now, |row| {
            if and.is_none_or(|and| row.indexes.contains(&&and.0)) {
                keys.push(row.key);
            }
        })?;
        for key in &keys {
            self.take(*key)?;
        }
        Ok(keys)
    }

    /// Marks a key until `until`, unless it is marked for longer; says whether that changed anything.
    pub(super) fn mark(&mut self, key: StoreKey, until: UnixTime, now: UnixTime) -> Result<bool, Error> {
        let before = self.marks.get(&key.0)?.map(|until| until.value());
        if until <= now || before.is_some_and(|before| until.as_millis() <= before) {
            return Ok(false);
        }
        self.unmark(key)?;
        self.marks.insert(&key.0, until.as_millis())?;
        self.ends.insert((until.as_millis(), MARK, &key.0), ())?;
        Ok(true)
    }

    /// Marks a key until `until` if it is not marked; says whether this call did it.
    pub(super) fn mark_once(&mut self, key: StoreKey, until: UnixTime, now: UnixTime) -> Result<bool, Error> {
        Ok(!is_marked(&self.marks, key, now)? && self.mark(key, until, now)?)
    }

    fn unmark(&mut self, key: StoreKey) -> Result<(), Error> {
        if let Some(until) = self.marks.remove(&key.0)?.map(|until| until.value()) {
            self.ends.remove((until, MARK, &key.0))?;
        }
        Ok(())
    }

    /// Takes a lease if nobody holds one.
    pub(super) fn lease(
        &mut self,
        key: StoreKey,
        ends_at: UnixTime,
        now: UnixTime,
    ) -> Result<Option<Lease>, Error> {
        let taken = self.leases.get(&key.0)?.is_some_and(|row| now.as_millis() < row.value().1);
        if taken || ends_at <= now {
            return Ok(None);
        }
        self.let_go(key)?;
        // One counter for all keys: it grows on each of them, and needs no row for leases that ended.
        let fence = self.meta.get("fence")?.map_or(0, |last| last.value()).saturating_add(1);
        self.meta.insert("fence", fence)?;
        let lease = Lease { key, fence };
        self.hold(&lease, ends_at)?;
        Ok(Some(lease))
    }

    /// Whether a lease is the newest of its key and has not run out.
    pub(super) fn holds(&self, lease: &Lease, now: UnixTime) -> Result<bool, Error> {
        let row = self.leases.get(&lease.key.0)?.map(|row| row.value());
        Ok(row.is_some_and(|(fence, ends_at)| fence == lease.fence && now.as_millis() < ends_at))
    }

    /// Notes the holder of a lease, until `ends_at` at least.
    pub(super) fn hold(&mut self, lease: &Lease, ends_at: UnixTime) -> Result<(), Error> {
        let before = self.let_go(lease.key)?;
        let ends_at = before.map_or(ends_at, |before| before.max(ends_at)).as_millis();
        self.leases.insert(&lease.key.0, (lease.fence, ends_at))?;
        self.ends.insert((ends_at, LEASE, &lease.key.0), ())?;
        Ok(())
    }

    /// Forgets who holds a lease; says when it would have ended.
    pub(super) fn let_go(&mut self, key: StoreKey) -> Result<Option<UnixTime>, Error> {
        let Some((_, ends_at)) = self.leases.remove(&key.0)?.map(|row| row.value()) else {
            return Ok(None);
        };
        self.ends.remove((ends_at, LEASE, &key.0))?;
        Ok(Some(UnixTime::from_millis(ends_at)))
    }

    /// Forgets who holds any lease; fences go on growing.
    pub(super) fn let_go_of_all(&mut self) -> Result<(), Error> {
        let first = |leases: &Table<'_, Hash, _>| -> Result<_, Error> {
            Ok(leases.first()?.map(|(key, _)| StoreKey(*key.value())))
        };
        while let Some(key) = first(&self.leases)? {
            self.let_go(key)?;
        }
        Ok(())
    }

    /// Takes away up to `limit` of the entries that have ended.
    pub(super) fn sweep(&mut self, now: UnixTime, limit: usize) -> Result<(), Error> {
        for _ in 0..limit {
            let Some((kind, key)) = first_ended(&self.ends, now)? else {
                break;
            };
            match kind {
                RECORD => drop(self.take(key)?),
                MARK => self.unmark(key)?,
                _ => drop(self.let_go(key)?),
            }
        }
        Ok(())
    }
}

/// A row of `records`, read in place.
struct Row<'a> {
    key: StoreKey,
    version: u64,
    ends_at: UnixTime,
    indexes: Vec<&'a [u8; 32]>,
    payload: &'a [u8],
}

impl Row<'_> {
    fn to_stored(&self) -> Stored {
        let indexes = self.indexes.iter().map(|index| Index(**index)).collect();
        let record = Record { key: self.key, indexes, payload: Bytes::copy_from_slice(self.payload) };
        Stored { record, version: self.version, expires_at: self.ends_at }
    }
}

fn live<'a>(
    key: StoreKey,
    (version, ends_at, indexes, payload): (u64, u64, Vec<&'a [u8; 32]>, &'a [u8]),
    now: UnixTime,
) -> Option<Row<'a>> {
    let ends_at = UnixTime::from_millis(ends_at);
    (now < ends_at).then_some(Row { key, version, ends_at, indexes, payload })
}

fn for_each_under(
    by_index: &impl ReadableTable<(Hash, Hash), ()>,
    records: &impl ReadableTable<Hash, RecordRow>,
    index: Index,
    now: UnixTime,
    mut visit: impl FnMut(Row<'_>),
) -> Result<(), Error> {
    for entry in by_index.range((&index.0, &[0; 32])..=(&index.0, &[0xff; 32]))? {
        let key = entry.map(|(entry, _)| StoreKey(*entry.value().1))?;
        if let Some(row) = records.get(&key.0)?
            && let Some(row) = live(key, row.value(), now)
        {
            visit(row);
        }
    }
    Ok(())
}

fn is_marked(marks: &impl ReadableTable<Hash, u64>, key: StoreKey, now: UnixTime) -> Result<bool, Error> {
    Ok(marks.get(&key.0)?.is_some_and(|until| now.as_millis() < until.value()))
}

fn first_ended(
    ends: &impl ReadableTable<(u64, u8, Hash), ()>,
    now: UnixTime,
) -> Result<Option<(u8, StoreKey)>, Error> {
    let Some((entry, _)) = ends.first()? else {
        return Ok(None);
    };
    let (ends_at, kind, key) = entry.value();
    Ok((ends_at <= now.as_millis()).then_some((kind, StoreKey(*key))))
}

/// The database as a reader sees it: as it was when the transaction began.
pub(super) struct Snapshot<'a>(pub(super) &'a ReadTransaction);

impl Snapshot<'_> {
    /// The record of a key.
    pub(super) fn record(&self, key: StoreKey, now: UnixTime) -> Result<Option<Stored>, Error> {
        let row = self.0.open_table(RECORDS)?.get(&key.0)?;
        Ok(row.as_ref().and_then(|row| live(key, row.value(), now)).map(|row| row.to_stored()))
    }

    /// Keys and versions of the live records under an index.
    pub(super) fn under(&self, index: Index, now: UnixTime) -> Result<Vec<(StoreKey, u64)>, Error> {
        let (by_index, records) = (self.0.open_table(BY_INDEX)?, self.0.open_table(RECORDS)?);
        let mut found = Vec::new();
        for_each_under(&by_index, &records, index, now, |row| found.push((row.key, row.version)))?;
        Ok(found)
    }

    /// Whether a key is marked.
    pub(super) fn is_marked(&self, key: StoreKey, now: UnixTime) -> Result<bool, Error> {
        is_marked(&self.0.open_table(MARKS)?, key, now)
    }

    /// Up to `limit` live records after a key.
    pub(super) fn page(&self, after: Option<StoreKey>, limit: usize, now: UnixTime) -> Result<Page, Error> {
        use std::ops::Bound::{Excluded, Unbounded};

        let table = self.0.open_table(RECORDS)?;
        let after = after.as_ref().map_or(Unbounded, |key| Excluded(&key.0));
        let mut records: Vec<Stored> = Vec::new();
        for entry in table.range::<&[u8; 32]>((after, Unbounded))? {
            let (key, row) = entry?;
            let Some(row) = live(StoreKey(*key.value()), row.value(), now) else {
                continue;
            };
            if records.len() == limit {
                let next = records.last().map(|last| Cursor::after(last.record.key));
                return Ok(Page { records, next });
            }
            records.push(row.to_stored());
        }
        Ok(Page { records, next: None })
    }

    /// Whether anybody holds a lease, or held one that was not swept yet.
    pub(super) fn has_leases(&self) -> Result<bool, Error> {
        Ok(!self.0.open_table(LEASES)?.is_empty()?)
    }

    /// How many records there are, those among them that have ended and are not swept yet.
    pub(super) fn records(&self) -> Result<u64, Error> {
        Ok(self.0.open_table(RECORDS)?.len()?)
    }

    /// Whether there is something to sweep.
    pub(super) fn has_ended(&self, now: UnixTime) -> Result<bool, Error> {
        Ok(first_ended(&self.0.open_table(ENDS)?, now)?.is_some())
    }
}

#[cfg(test)]
impl Snapshot<'_> {
    /// How many rows of any kind there are, but for `meta`.
    pub(super) fn rows(&self) -> usize {
        let rows = [
            self.0.open_table(RECORDS).unwrap().len(),
            self.0.open_table(BY_INDEX).unwrap().len(),
            self.0.open_table(MARKS).unwrap().len(),
            self.0.open_table(LEASES).unwrap().len(),
            self.0.open_table(ENDS).unwrap().len(),
        ];
        rows.into_iter().map(|rows| usize::try_from(rows.unwrap()).unwrap()).sum()
    }
}
