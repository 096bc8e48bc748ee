//! Decompression under limits.

use super::Limits;
use super::ar::{Fault, Meter, Packed};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead as _, BufReader, Read};
use std::rc::Rc;

/// What `deb(5)` names, less the two that dpkg itself has given up writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    pub(super) fn by_suffix(suffix: &str) -> Option<Self> {
        match suffix {
            "" => Some(Self::None),
            ".gz" => Some(Self::Gzip),
            ".xz" => Some(Self::Xz),
            ".zst" => Some(Self::Zstd),
            _unknown => None,
        }
    }
}

/// The unpacked bytes of a member, counted and limited.
pub(super) struct Unpacked<'r> {
    decoder: Box<dyn Read + 'r>,
    pub(super) meter: Rc<Meter>,
    so_far_bytes: u64,
    max_bytes: u64,
    max_ratio: u64,
}

impl<'r> Unpacked<'r> {
    pub(super) fn new<R>(packed: Packed<'r, R>, compression: Compression, max_bytes: u64, limits: &Limits) -> Self
    where
        R: Read + 'r,
    {
        let meter = packed.meter();
        Self {
            decoder: decoder(packed, compression, limits.max_decoder_bytes),
            meter,
            so_far_bytes: 0,
            max_bytes,
            max_ratio: limits.max_ratio,
        }
    }

    fn overrun(&self) -> Option<Fault> {
        if self.so_far_bytes > self.max_bytes {
            return Some(Fault::TooLarge { what: "unpacked size", limit: self.max_bytes });
        }
        let packed = self.meter.packed_bytes.get();
        let unlikely = self.so_far_bytes > packed.saturating_mul(self.max_ratio);
        (unlikely && self.so_far_bytes > Limits::RATIO_FROM_BYTES)
            .then_some(Fault::TooLarge { what: "ratio of unpacked to packed size", limit: self.max_ratio })
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(into)?;
        self.so_far_bytes = self.so_far_bytes.saturating_add(read as u64);
        if let Some(fault) = self.overrun() {
            self.meter.fault.set(Some(fault));
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(read)
    }
}

fn decoder<'r>(packed: impl Read + 'r, compression: Compression, max_memory: u64) -> Box<dyn Read + 'r> {
    let packed = BufReader::with_capacity(64 << 10, packed);
    match compression {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Compression::Xz => match liblzma::stream::Stream::new_stream_decoder(max_memory, liblzma::stream::CONCATENATED)
        {
            Ok(stream) => Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream)),
            Err(error) => Box::new(Failing(Some(error.into()))),
        },
        Compression::Zstd => Box::new(Zstd::new(packed, max_memory)),
    }
}

/// A decoder that could not be set up says so when it is first read.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::ErrorKind::Other.into()))
    }
}

/// One frame after the other (RFC 8878 §3); each one's window is limited, and
/// its checksum, where it has one, is compared.
struct Zstd<R: Read> {
    packed: BufReader<R>,
    frame: FrameDecoder,
    begun: bool,
}

impl<R: Read> Zstd<R> {
    fn new(packed: BufReader<R>, max_memory: u64) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(max_memory);
        Self { packed, frame, begun: false }
    }

    fn check_sum(&self) -> io::Result<()> {
        match (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum()) {
            (Some(stated), Some(found)) if stated != found => Err(io::Error::other("checksum of a frame differs")),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.begun && self.frame.can_collect() > 0 {
                return self.frame.read(into);
            }
            if self.begun && !self.frame.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.packed, one).map_err(io::Error::other)?;
                continue;
            }
            if self.begun {
                self.check_sum()?;
                if self.packed.fill_buf()?.is_empty() {
                    return Ok(0);
                }
            }
            self.frame.reset(&mut self.packed).map_err(io::Error::other)?;
            self.begun = true;
        }
    }
}
