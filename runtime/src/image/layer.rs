//! One layer: decompressed, hashed and unpacked in one pass over its bytes.
//!
//! Nothing of it counts until its end: the compressed bytes must have the manifest's digest and size, the plain ones
//! the configuration's diffID. The caller commits the folder only then.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::digest::{Digest, HashingReader};
use super::error::disk_code;
use super::unpack::{Limits, UnpackError, Unpacked, unpack};

/// 2^27 bytes, what zstd itself allows without being asked for more.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const READ_BUFFER_BYTES: usize = 64 << 10;
/// How much more than its bytes a layer may hold, once it holds more than the floor. Ordinary layers stay below 20.
const RATIO_MAX: u64 = 200;
const RATIO_FLOOR_BYTES: u64 = 2 << 30;

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("decompressing the layer")]
    Read(#[source] io::Error),
    #[error("digest is {actual}, not {wanted}")]
    Digest { wanted: Digest, actual: Digest },
    #[error("size is {actual} bytes, not {wanted}")]
    Size { wanted: u64, actual: u64 },
    #[error("diffID is {actual}, not {wanted}")]
    DiffId { wanted: Digest, actual: Digest },
}

impl LayerError {
    pub fn code(&self) -> tonic::Code {
        match self {
            LayerError::Unpack(UnpackError::Write { source, .. }) => disk_code(source),
            LayerError::Unpack(_) => tonic::Code::InvalidArgument,
            // A layer comes from a channel: what cannot be read cannot be decompressed.
            LayerError::Read(_) | LayerError::Digest { .. } | LayerError::Size { .. } | LayerError::DiffId { .. } => {
                tonic::Code::DataLoss
            }
        }
    }
}

/// What a layer must turn out to be. Archives of docker name no digest of the compressed bytes.
#[derive(Clone, Debug)]
pub struct Expected {
    pub blob: Option<(Digest, u64)>,
    pub diff_id: Digest,
}

/// The seams for the limits: tests set small ones.
#[derive(Clone, Copy, Debug)]
pub struct LayerLimits {
    pub unpack: Limits,
    pub ratio_max: u64,
    pub ratio_floor_bytes: u64,
    /// How long another pull of the same layer is waited for while next to nothing comes of it.
    pub patience: Duration,
}

impl Default for LayerLimits {
    fn default() -> LayerLimits {
        LayerLimits {
            unpack: Limits::default(),
            ratio_max: RATIO_MAX,
            ratio_floor_bytes: RATIO_FLOOR_BYTES,
            patience: Duration::from_secs(30),
        }
    }
}

/// Reads the whole of `stream`, a layer as it is stored, into `folder`.
pub fn apply(
    stream: impl Read,
    expected: &Expected,
    folder: &OwnedFd,
    aside: &OwnedFd,
    limits: &LayerLimits,
) -> Result<Unpacked, LayerError> {
    let read = Rc::new(Cell::new(0_u64));
    let longest = expected.blob.as_ref().map_or(u64::MAX, |(_, size)| size.saturating_add(1));
    let mut stored = HashingReader::new(Counting { inner: stream.take(longest), count: Rc::clone(&read) });
    let unpacked = apply_plain(&mut stored, read, expected, folder, aside, limits);
    // A layer that is not what it was said to be is worth more as a message than where it broke.
    let local = matches!(&unpacked, Err(LayerError::Unpack(error)) if error.is_local());
    if !local {
        io::copy(&mut stored, &mut io::sink()).map_err(LayerError::Read)?;
        verify_blob(stored, expected)?;
    }
    unpacked
}

fn verify_blob<R>(stored: HashingReader<R>, expected: &Expected) -> Result<(), LayerError> {
    let Some((digest, size)) = &expected.blob else { return Ok(()) };
    let actual = stored.hasher.bytes();
    if actual != *size {
        return Err(LayerError::Size { wanted: *size, actual });
    }
    let actual = stored.hasher.finish();
    if actual != *digest {
        return Err(LayerError::Digest { wanted: digest.clone(), actual });
    }
    Ok(())
}

fn apply_plain(
    stored: &mut impl Read,
    read: Rc<Cell<u64>>,
    expected: &Expected,
    folder: &OwnedFd,
    aside: &OwnedFd,
    limits: &LayerLimits,
) -> Result<Unpacked, LayerError> {
    let bounded = Bounded { inner: decompress(stored)?, plain: 0, stored: read, limits: *limits };
    let mut plain = HashingReader::new(bounded);
    let unpacked = unpack(&mut plain, folder, aside, &limits.unpack);
    let unpacked = match unpacked {
        Err(error) if error.is_local() => return Err(error.into()),
        unpacked => unpacked?,
    };
    // The padding after the archive's end counts towards the digest.
    io::copy(&mut plain, &mut io::sink()).map_err(LayerError::Read)?;
    let actual = plain.hasher.finish();
    if actual != expected.diff_id {
        return Err(LayerError::DiffId { wanted: expected.diff_id.clone(), actual });
    }
    Ok(unpacked)
}

/// gzip, zstd or neither, as the first bytes say. Public and pure: a seat for fuzzing.
pub fn decompress<'a>(mut stored: impl Read + 'a) -> Result<Box<dyn Read + 'a>, LayerError> {
    let mut magic = Vec::with_capacity(4);
    (&mut stored).take(4).read_to_end(&mut magic).map_err(LayerError::Read)?;
    let gzip = magic.starts_with(&[0x1f, 0x8b]);
    let zstd = magic == [0x28, 0xb5, 0x2f, 0xfd];
    let whole = BufReader::with_capacity(READ_BUFFER_BYTES, Cursor::new(magic).chain(stored));
    if gzip {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(whole)));
    }
    if zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole).map_err(LayerError::Read)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(LayerError::Read)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

struct Counting<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

/// Stops a decompression bomb: in all bytes that come out, not only in those that are written.
struct Bounded<R> {
    inner: R,
    plain: u64,
    stored: Rc<Cell<u64>>,
    limits: LayerLimits,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.plain += n as u64;
        // Headers take 512 bytes an entry besides the data.
        let most =
            self.limits.unpack.data_max_bytes.saturating_add(self.limits.unpack.entries_max.saturating_mul(2048));
        if self.plain > most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it decompresses to more than {most} bytes"),
            ));
        }
        let ratio = self.limits.ratio_max;
        if self.plain > self.limits.ratio_floor_bytes && self.plain / ratio > self.stored.get() {
            let message = format!("it decompresses to more than {ratio} times its size");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(n)
    }
}
