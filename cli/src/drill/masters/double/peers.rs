//! How members reach each other: TCP to the peer URLs, in frames with four bytes of length before them. Doubles speak with doubles only.
//!
//! A message that cannot be sent is lost: whoever sent it says it again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::etcd::Member;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::db::seal;
use super::flags::address;
use super::member::{Input, receive, received};
use super::wire::{Asks, Cluster, Hello, Ids, Message};

/// Whoever does not answer within this is not there.
const PATIENCE: Duration = Duration::from_secs(2);
/// A database is on its way for no longer.
const DATABASE: Duration = Duration::from_mins(5);
/// Messages on their way to one member; more are lost.
const QUEUE: usize = 64;
/// No frame is larger, bytes.
const LARGEST: u32 = 8 << 20;
/// Of a database at once, bytes.
const PIECE: usize = 256 << 10;

/// The ways to the others.
#[derive(Debug)]
pub(super) struct Peers {
    ids: Ids,
    runtime: Handle,
    links: BTreeMap<u64, Link>,
}

#[derive(Debug)]
struct Link {
    urls: Vec<String>,
    messages: mpsc::Sender<Message>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peers {
    pub(super) fn new(ids: Ids, runtime: Handle) -> Self {
        Self {
            ids,
            runtime,
            links: BTreeMap::new(),
        }
    }

    /// Who there is now.
    pub(super) fn set(&mut self, members: &[Member]) {
        let others = || members.iter().filter(|member| member.id != self.ids.member);
        let stays = |id: &u64, link: &mut Link| {
            others().any(|member| member.id == *id && member.peer_urls == link.urls)
        };
        self.links.retain(stays);
        for member in others() {
            if self.links.contains_key(&member.id) {
                continue;
            }
            let (messages, queue) = mpsc::channel(QUEUE);
            let hello = self.hello(member.id, Asks::Talk(true));
            let urls = member.peer_urls.clone();
            let task = self.runtime.spawn(link(hello, urls.clone(), queue));
            let link = Link {
                urls,
                messages,
                task: task.abort_handle(),
            };
            self.links.insert(member.id, link);
        }
    }

    fn hello(&self, to: u64, asks: Asks) -> Hello {
        Hello {
            cluster: self.ids.cluster,
            from: self.ids.member,
            to,
            asks: Some(asks),
        }
    }

    pub(super) fn send(&self, message: Message) {
        if let Some(link) = self.links.get(&message.to) {
            // A queue that is full is that of one who is away.
            let _lost = link.messages.try_send(message);
        }
    }

    /// Sends so many bytes of a database; what came of it is an input.
    pub(super) fn send_database(&self, to: u64, path: PathBuf, bytes: u64, inputs: mpsc::Sender<Input>) {
        let hello = self.hello(to, Asks::Database(bytes));
        let urls = self
            .links
            .get(&to)
            .map(|link| link.urls.clone())
            .unwrap_or_default();
        self.runtime.spawn(async move {
            let sent = timeout(DATABASE, send_database(hello, &urls, &path, bytes)).await;
            let upto = sent.ok().and_then(Result::ok);
            let _ended = inputs.send(Input::SentDatabase(to, upto)).await;
        });
    }
}

async fn connect(urls: &[String]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for url in urls {
        let at = address(url).map_err(io::Error::other)?;
        match timeout(PATIENCE, TcpStream::connect(at)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn put(
    to: &mut (impl AsyncWriteExt + Unpin),
    message: &impl blackstart_proto::Message,
) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_u32(length).await?;
    to.write_all(&bytes).await?;
    to.flush().await
}

async fn get<T: blackstart_proto::Message + Default>(
    from: &mut (impl AsyncReadExt + Unpin),
) -> io::Result<T> {
    let length = from.read_u32().await?;
    if length > LARGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    from.read_exact(&mut bytes).await?;
    T::decode(&*bytes).map_err(io::Error::other)
}

async fn link(hello: Hello, urls: Vec<String>, mut queue: mpsc::Receiver<Message>) {
    let mut connection = None;
    while let Some(message) = queue.recv().await {
        if connection.is_none() {
            let Ok(stream) = connect(&urls).await else {
                continue;
            };
            let mut stream = BufWriter::new(stream);
            if put(&mut stream, &hello).await.is_err() {
                continue;
            }
            connection = Some(stream);
        }
        if let Some(stream) = &mut connection
            && put(stream, &message).await.is_err()
        {
            connection = None;
        }
    }
}

async fn send_database(hello: Hello, urls: &[String], path: &Path, bytes: u64) -> io::Result<u64> {
    let mut file = tokio::fs::File::open(path).await?.take(bytes);
    let mut stream = connect(urls).await?;
    put(&mut stream, &hello).await?;
    tokio::io::copy(&mut file, &mut stream).await?;
    stream.read_u64().await
}

/// Asks whoever is at these URLs of which cluster it is, and who else; `None`: nobody answers.
pub(super) async fn cluster(urls: &[String]) -> Option<Cluster> {
    let asked = async {
        let mut stream = connect(urls).await?;
        let hello = Hello {
            asks: Some(Asks::Cluster(true)),
            ..Hello::default()
        };
        put(&mut stream, &hello).await?;
        get(&mut stream).await
    };
    timeout(PATIENCE, asked).await.ok()?.ok()
}

/// Listens for the others.
///
/// # Errors
/// It cannot.
pub(super) async fn listen(
    at: SocketAddr,
    ids: Ids,
    database: PathBuf,
    inputs: mpsc::Sender<Input>,
) -> io::Result<()> {
    let listener = TcpListener::bind(at).await?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            // Whoever breaks off comes again.
            tokio::spawn(serve(stream, ids, database.clone(), inputs.clone()));
        }
    });
    Ok(())
}

async fn serve(
    stream: TcpStream,
    ids: Ids,
    database: PathBuf,
    inputs: mpsc::Sender<Input>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let hello: Hello = match timeout(PATIENCE, get(&mut stream)).await {
        Ok(hello) => hello?,
        Err(_) => return Ok(()),
    };
    let is_for_me = (hello.cluster, hello.to) == (ids.cluster, ids.member);
    match hello.asks {
        Some(Asks::Cluster(_)) => {
            let (to, members) = oneshot::channel();
            let _ended = inputs.send(Input::Members(to)).await;
            let members = members.await.unwrap_or_default();
            let cluster = Cluster {
                cluster: ids.cluster,
                members,
            };
            put(&mut stream, &cluster).await
        }
        Some(Asks::Talk(_)) if is_for_me => loop {
            let message: Message = get(&mut stream).await?;
            if message.from != hello.from || inputs.send(Input::Peer(message)).await.is_err() {
                return Ok(());
            }
        },
        Some(Asks::Database(bytes)) if is_for_me => {
            let file = receive(&database)?;
            let file = take(&mut stream, bytes, file).await?;
            tokio::task::spawn_blocking(move || seal(file)).await??;
            let (to, done) = oneshot::channel();
            let _ended = inputs.send(Input::Received(received(&database), to)).await;
            match done.await {
                Ok(Ok(upto)) => {
                    stream.write_u64(upto).await?;
                    stream.flush().await
                }
                Ok(Err(why)) => Err(io::Error::other(why)),
                Err(_) => Ok(()),
            }
        }
        Some(Asks::Talk(_) | Asks::Database(_)) | None => Ok(()),
    }
}

async fn take(stream: &mut BufReader<TcpStream>, bytes: u64, file: File) -> io::Result<File> {
    let mut file = tokio::fs::File::from_std(file);
    let mut left = bytes;
    let mut buffer = vec![0; PIECE];
    while left > 0 {
        let at_most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = stream.read(&mut buffer[..at_most]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all(&buffer[..read]).await?;
        left -= read as u64;
    }
    file.flush().await?;
    Ok(file.into_std().await)
}
