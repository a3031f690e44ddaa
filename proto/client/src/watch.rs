use bytes::{Buf, BytesMut};
use gantry_kube::{Object, Status};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

use crate::ClientError;

/// One event is one object of at most 1.5 MB, written out as JSON.
const EVENT_MAX_BYTES: usize = 16 << 20;

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object came to be, or came into the selector.
    Added(Object),
    Modified(Object),
    /// The object went, or left the selector; its last content.
    Deleted(Object),
    /// Nothing happened up to this resourceVersion.
    Bookmark(String),
}

/// The events of one watch request, until the server ends it.
pub struct WatchStream {
    call: String,
    body: Body,
    buffer: BytesMut,
    searched: usize,
}

impl WatchStream {
    pub(crate) fn new(call: String, body: Body) -> WatchStream {
        WatchStream { call, body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next event; `None` when the server ended the watch in order. Cancel-safe: what was read stays in the buffer.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, ClientError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return self.event(&line).map(Some);
            }
            self.searched = self.buffer.len();
            if self.searched > EVENT_MAX_BYTES {
                return Err(self.answer(format!("an event of more than {EVENT_MAX_BYTES} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(source)) => {
                    return Err(ClientError::Transport { call: self.call.clone(), source: Box::new(source) });
                }
            }
        }
    }

    fn event(&self, line: &[u8]) -> Result<WatchEvent, ClientError> {
        let mut value: Value = serde_json::from_slice(line).map_err(|e| self.answer(e.to_string()))?;
        let object = value["object"].take();
        let kind = value["type"].as_str().unwrap_or("");
        if kind == "ERROR" {
            let status =
                Status::from_value(&object).unwrap_or_else(|| Status::internal("a watch error without a status"));
            return Err(ClientError::Api { call: self.call.clone(), status: Box::new(status) });
        }
        let object = Object::from_value(object).map_err(|e| self.answer(e.to_string()))?;
        match kind {
            "ADDED" => Ok(WatchEvent::Added(object)),
            "MODIFIED" => Ok(WatchEvent::Modified(object)),
            "DELETED" => Ok(WatchEvent::Deleted(object)),
            "BOOKMARK" => Ok(WatchEvent::Bookmark(object.resource_version().to_owned())),
            other => Err(self.answer(format!("event type {other:?}"))),
        }
    }

    fn answer(&self, why: String) -> ClientError {
        ClientError::Answer { call: self.call.clone(), why }
    }
}
