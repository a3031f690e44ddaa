use std::net::Ipv4Addr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use proptest::prelude::*;

use super::*;

fn server() -> Server {
    let config = Config::new("Cluster.Local.", Ipv4Addr::new(10, 96, 0, 10));
    let own = [config.service_ip.into(), (*config.listen.ip()).into()];
    let mut directory = Directory::default();
    directory.set_complete();
    Server {
        zone: config.zone().unwrap(),
        directory: Arc::new(RwLock::new(directory)),
        upstream: Upstream::new(UpstreamConfig::Servers(Vec::new()), own, Env::system()),
        cache: Mutex::new(HashMap::new()),
        forwards: Arc::new(Semaphore::new(1)),
        env: Env::system(),
    }
}

fn query(name: &str) -> Message {
    let mut message = Message::new(9, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

fn addresses(name: &str, count: u32, ttl: u32) -> Vec<Record> {
    let name = Name::from_ascii(name).unwrap();
    (0..count).map(|i| Record::from_rdata(name.clone(), ttl, RData::A(A(Ipv4Addr::from(i))))).collect()
}

proptest! {
    #[test]
    fn no_datagram_breaks_the_server(bytes: Vec<u8>) {
        not_a_query(&bytes);
        if let Ok(message) = Message::from_vec(&bytes) {
            let room = udp_room(&message);
            if let Some(answer) = server().local(&message) {
                prop_assert!(encode(answer, Some(room)).len() <= room);
            }
        }
    }

    #[test]
    fn an_answer_fits_its_datagram_or_says_that_there_is_more(count in 0_u32..400, room in 512_usize..1300) {
        let mut message = reply(&query("many.example.org."), ResponseCode::NoError);
        message.add_answers(addresses("many.example.org.", count, 5));
        let bytes = encode(message, Some(room));
        prop_assert!(bytes.len() <= room);
        let read = Message::from_vec(&bytes).unwrap();
        prop_assert_eq!(read.metadata.truncation, (read.answers.len() as u32) < count);
        prop_assert!(count == 0 || !read.answers.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_as_long_as_they_may_be() {
    let (server, asked) = (server(), query("example.org."));
    assert!(server.local(&asked).is_none(), "someone else has to be asked");
    let mut answer = Message::response(1, OpCode::Query);
    answer.add_queries(asked.queries.clone());
    answer.add_answers(addresses("example.org.", 1, 20));
    server.remember(&asked, &answer);
    tokio::time::advance(Duration::from_secs(15)).await;
    let kept = server.local(&asked).expect("it is kept");
    assert_eq!((kept.metadata.id, kept.answers[0].ttl), (9, 5));
    assert!(server.local(&query("example.net.")).is_none());
    tokio::time::advance(Duration::from_secs(6)).await;
    assert!(server.local(&asked).is_none(), "its time is over");
}

#[tokio::test]
async fn a_name_that_nobody_can_resolve_is_a_failure_and_not_an_absence() {
    let answer = server().forward(&query("example.org."), Transport::Udp).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}
