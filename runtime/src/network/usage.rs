//! What went through the pods' links, by the kernel's counters at the host's end of each.

use std::collections::BTreeMap;

/// One interface, as those see it that it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkUsage {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub receive_errors: u64,
    pub receive_drops: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub send_errors: u64,
    pub send_drops: u64,
}

impl LinkUsage {
    /// The same link from its other end.
    pub fn reversed(self) -> LinkUsage {
        LinkUsage {
            received_bytes: self.sent_bytes,
            received_packets: self.sent_packets,
            receive_errors: self.send_errors,
            receive_drops: self.send_drops,
            sent_bytes: self.received_bytes,
            sent_packets: self.received_packets,
            send_errors: self.receive_errors,
            send_drops: self.receive_drops,
        }
    }
}

/// Every interface of this network namespace by its name. Of the thread, which may be in another one than its process.
pub fn links() -> BTreeMap<String, LinkUsage> {
    parse(&std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default())
}

/// Two lines of headings, then eight numbers received and eight sent (proc_pid_net(5)).
fn parse(text: &str) -> BTreeMap<String, LinkUsage> {
    let link = |line: &str| {
        let (name, rest) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let &[received_bytes, received_packets, receive_errors, receive_drops, _, _, _, _, ref sent @ ..] =
            numbers.as_slice()
        else {
            return None;
        };
        let &[sent_bytes, sent_packets, send_errors, send_drops, ..] = sent else { return None };
        let usage = LinkUsage {
            received_bytes,
            received_packets,
            receive_errors,
            receive_drops,
            sent_bytes,
            sent_packets,
            send_errors,
            send_drops,
        };
        Some((name.trim().to_owned(), usage))
    };
    text.lines().filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_counted_from_both_ends() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes packets errs|bytes packets errs\n\
                    gt1: 100 1 2 5 0 0 0 0 300 3 4 6 0 0 0 0\n    lo:7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        let links = parse(text);
        let host = LinkUsage {
            received_bytes: 100,
            received_packets: 1,
            receive_errors: 2,
            receive_drops: 5,
            sent_bytes: 300,
            sent_packets: 3,
            send_errors: 4,
            send_drops: 6,
        };
        assert_eq!(links.keys().collect::<Vec<_>>(), ["gt1", "lo"]);
        assert_eq!(links["gt1"], host);
        assert_eq!(host.reversed().received_bytes, 300);
        assert_eq!(host.reversed().reversed(), host);
    }
}
