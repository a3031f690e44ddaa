use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const POD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

fn port(host_port: u16, container_port: u16) -> HostPort {
    HostPort { protocol: Protocol::Tcp, host_ip: None, host_port, container_port }
}

/// A port of 127.0.0.1 that is free.
fn free() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

async fn ask(port: u16, words: &[u8]) -> io::Result<Vec<u8>> {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    client.write_all(words).await?;
    client.shutdown().await?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// What stands for the pod: each of its clients is handed to `each`.
async fn pod<F: Future<Output = ()> + Send + 'static>(each: fn(TcpStream) -> F) -> u16 {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(each(client));
        }
    });
    port
}

/// Says everything back once all of it is here.
async fn echo(mut client: TcpStream) {
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    client.write_all(&heard).await.unwrap();
}

#[test]
fn only_what_is_expected_on_loopback_is_there() {
    let at = |host_ip: Option<[u8; 4]>, protocol| {
        place(&HostPort { protocol, host_ip: host_ip.map(Ipv4Addr::from), ..port(80, 80) }).map(|at| at.to_string())
    };
    assert_eq!(at(None, Protocol::Tcp).as_deref(), Some("127.0.0.1:80"));
    assert_eq!(at(Some([127, 0, 0, 9]), Protocol::Tcp).as_deref(), Some("127.0.0.9:80"));
    assert_eq!(at(Some([192, 0, 2, 1]), Protocol::Tcp), None);
    assert_eq!(at(None, Protocol::Udp), None);
}

#[tokio::test]
async fn what_is_said_arrives_whole_and_so_does_the_answer() {
    let (loopback, at) = (Loopback::default(), free());
    loopback.open("s", POD, &[port(at, pod(echo).await)]);
    let words: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(ask(at, &words).await.unwrap().len(), words.len());
    assert_eq!(ask(at, b"").await.unwrap(), b"");
    loopback.close("s").await;
    assert_eq!(ask(at, b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    // At once, by another.
    loopback.open("t", POD, &[port(at, pod(echo).await)]);
    assert_eq!(ask(at, b"again").await.unwrap(), b"again");
    loopback.close_all().await;
    assert_eq!(ask(at, b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn who_is_refused_by_the_pod_is_reset() {
    let (loopback, at) = (Loopback::default(), free());
    loopback.open("s", POD, &[port(at, free())]);
    let error = ask(at, b"x").await.unwrap_err();
    assert!([io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error.kind()), "{error}");
}

#[tokio::test]
async fn a_port_of_a_host_process_is_left_to_it() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (at, other) = (taken.local_addr().unwrap().port(), free());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = taken.accept().await {
            let _ = client.write_all(b"host").await;
        }
    });
    let loopback = Loopback::default();
    let to = pod(echo).await;
    loopback.open("s", POD, &[port(at, to), port(other, to)]);
    assert_eq!(ask(at, b"").await.unwrap(), b"host");
    assert_eq!(ask(other, b"pod").await.unwrap(), b"pod", "and the next is served");
}

/// Those whom the silent pod has.
static SILENT: AtomicUsize = AtomicUsize::new(0);

/// SECURITY.md, row 9: bounded in number, and nothing is left of who went away.
#[tokio::test]
async fn row_9_clients_are_bounded_and_leave_nothing() {
    let (loopback, at) = (Loopback::default(), free());
    let silent = |mut client: TcpStream| async move {
        SILENT.fetch_add(1, Ordering::SeqCst);
        let _ = client.read(&mut [0; 1]).await;
        SILENT.fetch_sub(1, Ordering::SeqCst);
    };
    loopback.open("s", POD, &[port(at, pod(silent).await)]);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS_MAX + 20 {
        clients.push(TcpStream::connect((Ipv4Addr::LOCALHOST, at)).await.unwrap());
    }
    let with = async |count: usize| {
        while SILENT.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    };
    with(CLIENTS_MAX).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        assert_eq!(SILENT.load(Ordering::SeqCst), CLIENTS_MAX, "the others wait");
    }
    drop(clients.split_off(20));
    with(20).await;
    loopback.close("s").await;
    with(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_moves_ends() {
    let moved = Mutex::new(Instant::now());
    let begun = Instant::now();
    tokio::join!(idle(&moved), async {
        tokio::time::sleep(IDLE_TIMEOUT / 2).await;
        *moved.lock() = Instant::now();
    });
    assert_eq!(begun.elapsed(), IDLE_TIMEOUT + IDLE_TIMEOUT / 2);
}
