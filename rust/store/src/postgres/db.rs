//! A connection and the statements that it keeps, in the shape in which the files of SQL ask for them. Invariant: a call comes back within its bound, whatever
//! becomes of the server or of the way to it, and a connection that did not answer in time is not used again.
//! Longer than a room should be: it has another driver's shape, call for call, and each call has its bound from the same state.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use cloaca_core::port::Halt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::postgres::address::Address;
use crate::postgres::connect::{self, Unreached};
use crate::postgres::tls::Tls;

/// Nobody waits longer than this for the answer to a statement of ours.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// Who has waited so long asks by another connection whether there is still a server: a slow one says so, one that stands still or is cut off does not.
const PROBE_EVERY: Duration = Duration::from_secs(4);

/// Between two looks at whether an answer is still wanted, and how long the server may take to hear that it is not.
const HALT_PAUSE: Duration = Duration::from_millis(20);
const HALT_PATIENCE: Duration = Duration::from_millis(500);

/// What a text holds in place of a NUL, which the server takes in none.
const NUL: &str = "\u{2400}";

/// Why a statement came to nothing.
#[derive(Debug)]
pub enum Error {
    /// The server, or the way to it.
    Server(tokio_postgres::Error),
    /// No server could be reached.
    Unreached(Unreached),
    /// It has not answered in time.
    Silent,
    /// Nobody waits for the answer any more.
    Ended,
    /// Nothing was found where something is.
    NoRows,
    /// A column holds what it cannot.
    Column(usize, String),
}

impl From<Unreached> for Error {
    fn from(unreached: Unreached) -> Self {
        Self::Unreached(unreached)
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// So many statements without names are kept by a connection.
const PLAIN_MAX: usize = 100;

/// What a statement gives.
pub type Result<T> = std::result::Result<T, Error>;

/// One connection.
pub struct Db {
    client: Client,
    /// None once it is dropped.
    runtime: Option<Runtime>,
    statements: RefCell<HashMap<Box<str>, Kept>>,
    /// Whose parameters have no names.
    plain: RefCell<HashMap<Box<str>, Statement>>,
    is_lost: Cell<bool>,
    address: Arc<Address>,
    /// How the server hears that an answer is not wanted any more.
    tls: Tls,
    /// Whether it answers users, whose statements take as long as they like.
    is_patient: Cell<bool>,
}

/// A statement that the server knows, with the names of its parameters in order.
#[derive(Clone)]
struct Kept {
    statement: Statement,
    names: std::sync::Arc<[Box<str>]>,
}

impl Db {
    /// What `connect` makes of a server at `address`, which is a client and the task that moves its bytes; `tls` is as it uses it.
    pub fn open<F, C>(address: &Address, tls: Tls, connect: F) -> Result<Self>
    where
        F: Future<Output = Result<(Client, C)>>,
        C: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Column(0, format!("no connection can be made: {error}")))?;
        let (halt, began) = (Halt::current(), Instant::now());
        let connected = runtime.block_on(async {
            let mut connect = std::pin::pin!(connect);
            loop {
                if let Ok(connected) = timeout(HALT_PAUSE, &mut connect).await {
                    let (client, task) = connected?;
                    tokio::spawn(task);
                    return Ok(client);
                }
                if halt.ends(began) {
                    return Err(Error::Ended);
                }
            }
        });
        let client = match connected {
            Ok(client) => client,
            Err(error) => {
                // The name of a host may still be looked up.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        Ok(Self {
            client,
            runtime: Some(runtime),
            statements: RefCell::default(),
            plain: RefCell::default(),
            is_lost: Cell::new(false),
            address: Arc::new(address.clone()),
            tls,
            is_patient: Cell::new(false),
        })
    }

    /// Whether it is of no more use.
    pub fn is_lost(&self) -> bool {
        self.is_lost.get() || self.client.is_closed()
    }

    /// From now on it waits for as long as the server works.
    pub fn be_patient(&self) {
        self.is_patient.set(true);
    }

    /// Waits for several answers at once, or for one: until this thread is to wait no more, or there is no server any more.
    pub fn wait<T>(
        &self,
        answer: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        match runtime.block_on(self.answered(answer)) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                // The server says so before it ends a connection, and of that end nothing is known yet.
                let is_fatal = |said: &DbError| {
                    matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
                };
                if self.client.is_closed() || error.is_closed() || error.as_db_error().is_some_and(is_fatal) {
                    self.is_lost.set(true);
                }
                Err(error.into())
            }
            Err(unanswered) => {
                self.is_lost.set(true);
                Err(unanswered)
            }
        }
    }

    async fn answered<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        let mut answer = std::pin::pin!(answer);
        let (halt, began) = (Halt::current(), Instant::now());
        let mut heard = began;
        let mut probe = Probe(None);
        loop {
            if let Ok(done) = timeout(HALT_PAUSE, &mut answer).await {
                return Ok(done);
            }
            if halt.ends(began) {
                // Best effort: what goes on there is nobody's any more.
                let _ =
                    timeout(HALT_PATIENCE, self.client.cancel_token().cancel_query(self.tls.clone())).await;
                return Err(Error::Ended);
            }
            if !self.is_patient.get() && began.elapsed() >= ANSWER_PATIENCE {
                return Err(Error::Silent);
            }
            match &mut probe.0 {
                Some(task) if task.is_finished() => {
                    if !task.await.unwrap_or(false) {
                        return Err(Error::Silent);
                    }
                    (probe.0, heard) = (None, Instant::now());
                }
                None if heard.elapsed() >= PROBE_EVERY => {
                    let address = Arc::clone(&self.address);
                    probe.0 = Some(tokio::spawn(async move { connect::is_there(&address).await }));
                }
                Some(_) | None => {}
            }
        }
    }

    /// The client itself, for what asks several things at once.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A statement that is prepared once for a connection. Its parameters have names.
    pub fn prepare_cached(&self, sql: &str) -> Result<Prepared<'_>> {
        if let Some(kept) = self.statements.borrow().get(sql) {
            return Ok(Prepared { db: self, kept: kept.clone() });
        }
        let (text, names) = numbered(sql);
        let statement = self.wait(self.client.prepare(&text))?;
        let kept = Kept { statement, names: names.into() };
        self.statements.borrow_mut().insert(sql.into(), kept.clone());
        Ok(Prepared { db: self, kept })
    }

    /// A statement as the server has it, which is prepared once for a connection as long as those are few.
    pub fn prepare_plain(&self, sql: &str) -> Result<Statement> {
        if let Some(kept) = self.plain.borrow().get(sql) {
            return Ok(kept.clone());
        }
        let statement = self.wait(self.client.prepare(sql))?;
        let mut plain = self.plain.borrow_mut();
        if plain.len() >= PLAIN_MAX {
            plain.clear();
        }
        plain.insert(sql.into(), statement.clone());
        Ok(statement)
    }

    /// Ends a transaction with `stamp`, and has `flush` come after it, all in one go.
    pub fn commit(
        &self,
        stamp: &Prepared<'_>,
        flush: Option<&Prepared<'_>>,
        params: &[(&str, &dyn ToParam)],
    ) -> Result<()> {
        let stamping = stamp.ordered(&params);
        let flushing = flush.map(|flush| flush.ordered(&params));
        self.wait(async {
            let stamped = async { self.client.execute(&stamp.kept.statement, &as_dyn(&stamping)).await };
            let flushed = async {
                match (flush, &flushing) {
                    (Some(flush), Some(params)) => {
                        self.client.query(&flush.kept.statement, &as_dyn(params)).await.map(drop)
                    }
                    _ => Ok(()),
                }
            };
            // What is asked first is sent first.
            let (stamped, committed, flushed) =
                futures_util::future::join3(stamped, self.client.batch_execute("COMMIT"), flushed).await;
            stamped.map(drop).and(committed).and(flushed)
        })
    }

    /// From here on all that is read is of one moment, until the end of what this returns.
    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        self.execute_batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        Ok(Snapshot(self))
    }

    /// Statements without parameters, in one message.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        self.wait(self.client.batch_execute(sql))
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for nothing: a probe may still look up the name of a host.
            runtime.shutdown_background();
        }
    }
}

/// Asks whether there is a server, unless nobody wants to know any more.
struct Probe(Option<JoinHandle<bool>>);

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// `:name` becomes `$1`, as the server has it. Casts (`::`) and what stands in quotes stay.
fn numbered(sql: &str) -> (String, Vec<Box<str>>) {
    let mut text = String::with_capacity(sql.len());
    let mut names: Vec<Box<str>> = Vec::new();
    let mut rest = sql;
    while let Some(place) = rest.find([':', '\'']) {
        text.push_str(&rest[..place]);
        rest = &rest[place..];
        if let Some(quoted) = rest.strip_prefix('\'') {
            let end = quoted.find('\'').map_or(rest.len(), |end| end + 2);
            text.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let name = rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len() - 1);
        if name == 0 {
            let colons = rest.len() - rest.trim_start_matches(':').len();
            text.push_str(&rest[..colons]);
            rest = &rest[colons..];
            continue;
        }
        let named = &rest[..=name];
        let number = names.iter().position(|known| **known == *named).unwrap_or_else(|| {
            names.push(named.into());
            names.len() - 1
        });
        text.push_str(&format!("${}", number + 1));
        rest = &rest[named.len()..];
    }
    text.push_str(rest);
    (text, names)
}

/// One moment, as far as it is read.
pub struct Snapshot<'d>(&'d Db);

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // If this fails, the connection is lost.
        let _ = self.0.execute_batch("COMMIT");
    }
}

/// A prepared statement on its connection.
pub struct Prepared<'d> {
    db: &'d Db,
    kept: Kept,
}

impl Prepared<'_> {
    /// Runs it, and tells how many rows that concerned.
    pub fn execute(&mut self, params: impl Params) -> Result<usize> {
        let params = self.ordered(&params);
        let concerned = self.db.wait(self.db.client.execute(&self.kept.statement, &as_dyn(&params)))?;
        Ok(usize::try_from(concerned).unwrap_or(usize::MAX))
    }

    /// All rows, to be read one after another.
    pub fn query(&mut self, params: impl Params) -> Result<Rows> {
        Ok(Rows(self.rows(&self.ordered(&params))?.into_iter()))
    }

    /// The first row.
    pub fn query_row<T>(&mut self, params: impl Params, read: impl FnOnce(&Row) -> Result<T>) -> Result<T> {
        let rows = self.rows(&self.ordered(&params))?;
        read(&Row(rows.into_iter().next().ok_or(Error::NoRows)?))
    }

    /// All rows.
    pub fn query_map<T>(
        &mut self,
        params: impl Params,
        mut read: impl FnMut(&Row) -> Result<T>,
    ) -> Result<std::vec::IntoIter<Result<T>>> {
        let rows = self.rows(&self.ordered(&params))?;
        Ok(rows.into_iter().map(|row| read(&Row(row))).collect::<Vec<_>>().into_iter())
    }

    /// Whether there is any row.
    pub fn exists(&mut self, params: impl Params) -> Result<bool> {
        Ok(!self.rows(&self.ordered(&params))?.is_empty())
    }

    fn rows(&self, params: &[Param<'_>]) -> Result<Vec<tokio_postgres::Row>> {
        self.db.wait(self.db.client.query(&self.kept.statement, &as_dyn(params)))
    }

    fn ordered<'p>(&self, params: &'p impl Params) -> Vec<Param<'p>> {
        self.kept.names.iter().enumerate().map(|(place, name)| params.at(place, name)).collect()
    }
}

fn as_dyn<'p>(params: &'p [Param<'_>]) -> Vec<&'p (dyn ToSql + Sync)> {
    params.iter().map(|param| param as &(dyn ToSql + Sync)).collect()
}

/// Parameters of a statement.
pub trait Params {
    /// The one of that name, which is the one at that place.
    fn at(&self, place: usize, name: &str) -> Param<'_>;
}

impl Params for &[(&str, &dyn ToParam)] {
    fn at(&self, _: usize, name: &str) -> Param<'_> {
        let found = self.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("a statement asks for {name}, which nobody gives")).1.param()
    }
}

impl<const N: usize> Params for [&dyn ToParam; N] {
    fn at(&self, place: usize, _: &str) -> Param<'_> {
        self[place].param()
    }
}

/// Parameters by their names.
macro_rules! named_params {
    ($($name:literal: $value:expr),* $(,)?) => {
        &[$(($name, &$value as &dyn $crate::postgres::db::ToParam)),*] as &[(&str, &dyn $crate::postgres::db::ToParam)]
    };
}
pub(crate) use named_params;

/// A parameter, which takes the form that its statement wants.
#[derive(Debug, Clone, Copy)]
pub enum Param<'p> {
    /// Nothing.
    Null,
    /// A number.
    Int(i64),
    /// A number with a fraction.
    Real(f64),
    /// A flag.
    Flag(bool),
    /// A text.
    Text(&'p str),
    /// Bytes.
    Bytes(&'p [u8]),
    /// An id.
    Id(Uuid),
    /// Numbers.
    Ints(&'p [i64]),
    /// Numbers, some of which may be missing.
    MaybeInts(&'p [Option<i64>]),
    /// Flags.
    Flags(&'p [bool]),
    /// Texts.
    Texts(&'p [&'p str]),
    /// Texts, some of which may be missing.
    MaybeTexts(&'p [Option<&'p str>]),
    /// Bytes, some of which may be missing.
    MaybeBytes(&'p [Option<&'p [u8]>]),
    /// Ids.
    Ids(&'p [Uuid]),
}

type Encoded = std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Encoded {
        match *self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Int(number) => put_int(number, ty, out)?,
            Self::Real(number) => out.put_f64(number),
            Self::Flag(flag) if *ty == Type::BOOL => out.put_u8(u8::from(flag)),
            Self::Flag(flag) => put_int(i64::from(flag), ty, out)?,
            Self::Text(text) if *ty == Type::UUID => out.put_slice(Uuid::parse_str(text)?.as_bytes()),
            Self::Text(text) => put_text(text, out),
            Self::Bytes(bytes) => out.put_slice(bytes),
            Self::Id(id) if *ty == Type::UUID => out.put_slice(id.as_bytes()),
            Self::Id(id) => put_text(&id.to_string(), out),
            Self::Ints(numbers) => put_array(numbers, ty, out, |number| Param::Int(*number))?,
            Self::MaybeInts(numbers) => {
                put_array(numbers, ty, out, |number| number.map_or(Param::Null, Param::Int))?
            }
            Self::Flags(flags) => put_array(flags, ty, out, |flag| Param::Flag(*flag))?,
            Self::Texts(texts) => put_array(texts, ty, out, |text| Param::Text(text))?,
            Self::MaybeTexts(texts) => {
                put_array(texts, ty, out, |text| text.map_or(Param::Null, Param::Text))?
            }
            Self::MaybeBytes(all) => {
                put_array(all, ty, out, |bytes| bytes.map_or(Param::Null, Param::Bytes))?
            }
            Self::Ids(ids) => put_array(ids, ty, out, |id| Param::Id(*id))?,
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn put_int(
    number: i64,
    ty: &Type,
    out: &mut BytesMut,
) -> std::result::Result<(), Box<dyn std::error::Error + Sync + Send>> {
    match *ty {
        Type::INT8 => out.put_i64(number),
        Type::INT4 => out.put_i32(i32::try_from(number)?),
        Type::INT2 => out.put_i16(i16::try_from(number)?),
        Type::BOOL => out.put_u8(u8::from(number != 0)),
        Type::FLOAT8 => out.put_f64(number as f64),
        _ => put_text(&number.to_string(), out),
    }
    Ok(())
}

/// A NUL is a sign of its own here, so that texts which differ go on to differ from those without.
fn put_text(text: &str, out: &mut BytesMut) {
    match text.contains('\0') {
        true => out.put_slice(text.replace('\0', NUL).as_bytes()),
        false => out.put_slice(text.as_bytes()),
    }
}

/// An array of one dimension, as the server reads it.
fn put_array<'p, T>(
    items: &'p [T],
    ty: &Type,
    out: &mut BytesMut,
    param: impl Fn(&'p T) -> Param<'p>,
) -> std::result::Result<(), Box<dyn std::error::Error + Sync + Send>> {
    let Kind::Array(of) = ty.kind() else { return Err(format!("a list stands where {ty} is wanted").into()) };
    out.put_i32(i32::from(!items.is_empty()));
    out.put_i32(1);
    out.put_u32(of.oid());
    if items.is_empty() {
        return Ok(());
    }
    out.put_i32(i32::try_from(items.len())?);
    out.put_i32(1);
    for item in items {
        let place = out.len();
        out.put_i32(-1);
        if let IsNull::No = param(item).to_sql(of, out)? {
            let length = i32::try_from(out.len() - place - 4)?;
            out[place..place + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
    Ok(())
}

/// What may be a parameter.
pub trait ToParam {
    /// It as one.
    fn param(&self) -> Param<'_>;
}

macro_rules! to_param {
    ($($ty:ty: $value:ident => $param:expr;)*) => {
        $(impl ToParam for $ty {
            fn param(&self) -> Param<'_> {
                let $value = self;
                $param
            }
        })*
    };
}

to_param! {
    i64: value => Param::Int(*value);
    u8: value => Param::Int(i64::from(*value));
    i32: value => Param::Int(i64::from(*value));
    u32: value => Param::Int(i64::from(*value));
    f64: value => Param::Real(*value);
    bool: value => Param::Flag(*value);
    str: value => Param::Text(value);
    String: value => Param::Text(value);
    Box<str>: value => Param::Text(value);
    std::sync::Arc<str>: value => Param::Text(value);
    std::borrow::Cow<'_, str>: value => Param::Text(value);
    [u8]: value => Param::Bytes(value);
    Vec<u8>: value => Param::Bytes(value);
    Uuid: value => Param::Id(*value);
    Vec<i64>: value => Param::Ints(value);
    Vec<Option<i64>>: value => Param::MaybeInts(value);
    Vec<bool>: value => Param::Flags(value);
    Vec<&str>: value => Param::Texts(value);
    Vec<Option<&str>>: value => Param::MaybeTexts(value);
    Vec<Option<&[u8]>>: value => Param::MaybeBytes(value);
    Vec<Uuid>: value => Param::Ids(value);
}

impl<T: ToParam + ?Sized> ToParam for &T {
    fn param(&self) -> Param<'_> {
        (**self).param()
    }
}

impl<T: ToParam> ToParam for Option<T> {
    fn param(&self) -> Param<'_> {
        self.as_ref().map_or(Param::Null, ToParam::param)
    }
}

/// Rows of an answer.
pub struct Rows(std::vec::IntoIter<tokio_postgres::Row>);

impl Rows {
    /// The next one.
    pub fn next(&mut self) -> Result<Option<Row>> {
        Ok(self.0.next().map(Row))
    }
}

/// One row of an answer.
pub struct Row(tokio_postgres::Row);

impl From<tokio_postgres::Row> for Row {
    fn from(row: tokio_postgres::Row) -> Self {
        Self(row)
    }
}

/// The place of a column.
pub trait Place {
    /// From zero on.
    fn place(&self) -> usize;
}

impl Place for usize {
    fn place(&self) -> usize {
        *self
    }
}

impl Row {
    /// What a column holds.
    pub fn get<P: Place, T: Column>(&self, column: P) -> Result<T> {
        let column = column.place();
        let raw: Raw<'_> = self.0.try_get(column)?;
        T::read(&raw).map_err(|why| Error::Column(column, why.to_string()))
    }

    /// Whether it holds nothing.
    pub fn is_null(&self, column: usize) -> Result<bool> {
        Ok(self.0.try_get::<_, Raw<'_>>(column)?.bytes.is_none())
    }
}

/// A column's bytes as the server sends them.
pub struct Raw<'r> {
    ty: Type,
    bytes: Option<&'r [u8]>,
}

impl<'r> FromSql<'r> for Raw<'r> {
    fn from_sql(
        ty: &Type,
        raw: &'r [u8],
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self { ty: ty.clone(), bytes: Some(raw) })
    }

    fn from_sql_null(ty: &Type) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self { ty: ty.clone(), bytes: None })
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Why a column could not be read.
pub type Unread = Box<dyn std::error::Error + Sync + Send>;

/// What a column may be read as.
pub trait Column: Sized {
    /// Out of what came.
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread>;
}

impl<'r> Raw<'r> {
    /// Its type.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        self.bytes.is_none()
    }

    fn some(&self) -> std::result::Result<&'r [u8], Unread> {
        self.bytes.ok_or_else(|| "it is empty".into())
    }
}

impl Column for i64 {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        let bytes = raw.some()?;
        Ok(match raw.ty {
            Type::INT8 => i64::from_be_bytes(bytes.try_into()?),
            Type::INT4 => i64::from(i32::from_be_bytes(bytes.try_into()?)),
            Type::INT2 => i64::from(i16::from_be_bytes(bytes.try_into()?)),
            ref other => return Err(format!("{other} is no whole number").into()),
        })
    }
}

impl Column for u32 {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        Ok(u32::try_from(i64::read(raw)?)?)
    }
}

impl Column for u8 {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        Ok(u8::try_from(i64::read(raw)?)?)
    }
}

impl Column for f64 {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        Ok(f64::from_be_bytes(raw.some()?.try_into()?))
    }
}

impl Column for bool {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        match raw.ty {
            Type::BOOL => Ok(raw.some()? != [0]),
            _ => Ok(i64::read(raw)? != 0),
        }
    }
}

impl Column for String {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        match raw.ty {
            Type::UUID => Ok(Uuid::read(raw)?.to_string()),
            _ => Ok(str::from_utf8(raw.some()?)?.to_owned()),
        }
    }
}

impl Column for std::sync::Arc<str> {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        Ok(str::from_utf8(raw.some()?)?.into())
    }
}

impl Column for Box<str> {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        Ok(str::from_utf8(raw.some()?)?.into())
    }
}

impl Column for Vec<u8> {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        Ok(raw.some()?.to_owned())
    }
}

impl<const N: usize> Column for [u8; N] {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        Ok(raw.some()?.try_into()?)
    }
}

impl Column for Uuid {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        match raw.ty {
            Type::UUID => Ok(Uuid::from_slice(raw.some()?)?),
            _ => Ok(Uuid::parse_str(str::from_utf8(raw.some()?)?)?),
        }
    }
}

impl<T: Column> Column for Option<T> {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        match raw.bytes {
            Some(_) => T::read(raw).map(Some),
            None => Ok(None),
        }
    }
}

impl Column for Vec<i64> {
    fn read(raw: &Raw<'_>) -> std::result::Result<Self, Unread> {
        <Vec<i64> as FromSql<'_>>::from_sql(&raw.ty, raw.some()?)
    }
}

impl Column for () {
    fn read(_: &Raw<'_>) -> std::result::Result<Self, Unread> {
        Ok(())
    }
}

/// Where nothing being found is an answer.
pub trait OptionalExtension<T> {
    /// None if nothing was found.
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExtension<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(found) => Ok(Some(found)),
            Err(Error::NoRows) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_casts_and_quotes_stay() {
        let (text, names) = numbered("SELECT :at::bigint, ':no', :b WHERE x = :at");
        assert_eq!(text, "SELECT $1::bigint, ':no', $2 WHERE x = $1");
        assert_eq!(names, [Box::from(":at"), Box::from(":b")]);
    }
}
