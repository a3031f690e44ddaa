//! The headers of a stream: names and values, compressed over the whole life of a connection with the dictionary that
//! SPDY/3 prescribes (draft 3.1, 2.6.10).

use std::sync::OnceLock;

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::SpdyError;

/// What a block of headers may become, and how many there may be: those of our peers are three short ones.
pub const HEADERS_MAX_BYTES: usize = 8 << 10;
pub const HEADERS_MAX: usize = 64;

/// Names in lower case, with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// A value by its name, which is written in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.0.len() as u32);
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            out.put_u32(text.len() as u32);
            out.extend_from_slice(text.as_bytes());
        }
    }

    fn take(mut block: &[u8]) -> Result<Headers, SpdyError> {
        let count = block.try_get_u32().map_err(|_| SpdyError::Text)? as usize;
        if count > HEADERS_MAX {
            return Err(SpdyError::TooManyHeaders);
        }
        let mut text = || {
            let length = block.try_get_u32().map_err(|_| SpdyError::Text)? as usize;
            let bytes = block.get(..length).ok_or(SpdyError::Text)?;
            let text = std::str::from_utf8(bytes).map_err(|_| SpdyError::Text)?.to_owned();
            block.advance(length);
            Ok(text)
        };
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let name: String = text()?;
            all.push((name.to_ascii_lowercase(), text()?));
        }
        Ok(Headers(all))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(pairs: [(&str, &str); N]) -> Headers {
        Headers(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
    }
}

#[derive(Debug)]
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater(Decompress::new(true))
    }
}

impl Inflater {
    pub fn headers(&mut self, mut block: &[u8]) -> Result<Headers, SpdyError> {
        // One byte more than may come: a block that fills it is too long, however much it would go on to be.
        let mut out = vec![0; HEADERS_MAX_BYTES + 1];
        let mut made = 0;
        while !block.is_empty() {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress(block, &mut out[made..], FlushDecompress::Sync);
            block.advance((self.0.total_in() - read) as usize);
            made += (self.0.total_out() - written) as usize;
            match status {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(dictionary()).map_err(|_| SpdyError::Compression)?;
                }
                Ok(_) if made > HEADERS_MAX_BYTES => return Err(SpdyError::HeadersTooLong),
                Ok(Status::Ok) => {}
                // What a sender flushes goes on, and is never at its end.
                Ok(Status::BufError | Status::StreamEnd) | Err(_) => return Err(SpdyError::Compression),
            }
        }
        Headers::take(&out[..made])
    }
}

pub struct Deflater(Compress);

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Deflater").finish_non_exhaustive()
    }
}

impl Default for Deflater {
    fn default() -> Deflater {
        let mut compress = Compress::new(Compression::fast(), true);
        // Refused only where something was compressed before.
        let _ = compress.set_dictionary(dictionary());
        Deflater(compress)
    }
}

impl Deflater {
    pub fn headers(&mut self, headers: &Headers, out: &mut Vec<u8>) -> Result<(), SpdyError> {
        let mut block = Vec::new();
        headers.put(&mut block);
        let mut rest = block.as_slice();
        loop {
            out.reserve(block.len() + 64);
            let read = self.0.total_in();
            self.0.compress_vec(rest, out, FlushCompress::Sync).map_err(|_| SpdyError::Compression)?;
            rest.advance((self.0.total_in() - read) as usize);
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

/// Words that a header of the web is likely to hold; each with its length before it, then some without.
fn dictionary() -> &'static [u8] {
    static DICTIONARY: OnceLock<Vec<u8>> = OnceLock::new();
    DICTIONARY.get_or_init(|| {
        let mut all = Vec::new();
        for word in WORDS.split('\n') {
            all.put_u32(word.len() as u32);
            all.extend_from_slice(word.as_bytes());
        }
        all.extend_from_slice(TAIL.as_bytes());
        all
    })
}

const WORDS: &str = "options\nhead\npost\nput\ndelete\ntrace\naccept\naccept-charset\naccept-encoding\naccept-language\n\
    accept-ranges\nage\nallow\nauthorization\ncache-control\nconnection\ncontent-base\ncontent-encoding\n\
    content-language\ncontent-length\ncontent-location\ncontent-md5\ncontent-range\ncontent-type\ndate\netag\nexpect\n\
    expires\nfrom\nhost\nif-match\nif-modified-since\nif-none-match\nif-range\nif-unmodified-since\nlast-modified\n\
    location\nmax-forwards\npragma\nproxy-authenticate\nproxy-authorization\nrange\nreferer\nretry-after\nserver\nte\n\
    trailer\ntransfer-encoding\nupgrade\nuser-agent\nvary\nvia\nwarning\nwww-authenticate\nmethod\nget\nstatus\n200 OK\n\
    version\nHTTP/1.1\nurl\npublic\nset-cookie\nkeep-alive\norigin";

const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

#[cfg(test)]
mod tests {
    use super::*;

    /// Every stream begins by naming its dictionary by this sum.
    #[test]
    fn the_dictionary_is_the_one_that_peers_have() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!((dictionary().len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut block = Vec::new();
        let bomb = Headers(vec![("a".to_owned(), "b".repeat(256 << 10))]);
        Deflater::default().headers(&bomb, &mut block).unwrap();
        assert!(block.len() < HEADERS_MAX_BYTES, "{} bytes are no bomb", block.len());
        assert_eq!(Inflater::default().headers(&block), Err(SpdyError::HeadersTooLong));
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let refused = |block: &[u8]| {
            let mut packed = Vec::new();
            let mut compress = Deflater::default();
            packed.reserve(256);
            compress.0.compress_vec(block, &mut packed, FlushCompress::Sync).unwrap();
            Inflater::default().headers(&packed).unwrap_err()
        };
        assert_eq!(refused(&[0, 0, 1, 0]), SpdyError::TooManyHeaders);
        assert_eq!(refused(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), SpdyError::Text);
        assert_eq!(refused(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0]), SpdyError::Text);
        assert_eq!(Inflater::default().headers(b"plain"), Err(SpdyError::Compression));
    }
}
