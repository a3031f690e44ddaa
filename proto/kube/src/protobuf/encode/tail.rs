//! A message that grows at its front.

/// Most objects fit into this.
const FIRST_BYTES: usize = 4 << 10;

#[derive(Default)]
pub(super) struct Tail {
    buffer: Vec<u8>,
    /// Where what is written begins; before it there is room.
    start: usize,
}

/// How long a number is on the wire.
pub(super) fn varint_bytes(number: u64) -> usize {
    // Seven bits a byte, and one byte for zero.
    ((64 - (number | 1).leading_zeros()) as usize).div_ceil(7)
}

impl Tail {
    pub(super) fn written(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// As long as what was written, and no longer.
    pub(super) fn into_vec(self) -> Vec<u8> {
        self.written().to_vec()
    }

    /// Room for so many bytes before what is written.
    fn front(&mut self, bytes: usize) -> &mut [u8] {
        if bytes > self.start {
            let more = bytes.max(self.buffer.len()).max(FIRST_BYTES);
            let mut larger = vec![0; self.buffer.len() + more];
            larger[self.start + more..].copy_from_slice(self.written());
            self.buffer = larger;
            self.start += more;
        }
        self.start -= bytes;
        &mut self.buffer[self.start..self.start + bytes]
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.front(bytes.len()).copy_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        let room = self.front(varint_bytes(number));
        let last = room.len() - 1;
        for byte in &mut room[..last] {
            *byte = number as u8 | 0x80;
            number >>= 7;
        }
        room[last] = number as u8;
    }

    fn key(&mut self, number: u32, wire_type: u64) {
        self.varint(u64::from(number) << 3 | wire_type);
    }

    pub(super) fn number(&mut self, number: u32, value: u64) {
        self.varint(value);
        self.key(number, 0);
    }

    pub(super) fn double(&mut self, number: u32, value: f64) {
        self.put(&value.to_bits().to_le_bytes());
        self.key(number, 1);
    }

    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.put(bytes);
        self.length(number, bytes.len());
    }

    pub(super) fn text(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    /// The head of a field whose so many bytes are written.
    pub(super) fn length(&mut self, number: u32, bytes: usize) {
        self.varint(bytes as u64);
        self.key(number, 2);
    }
}
