use proptest::prelude::*;

use super::*;

fn headers() -> impl Strategy<Value = Headers> {
    proptest::collection::vec(("[a-z-]{1,20}", ".{0,40}"), 0..6).prop_map(Headers)
}

fn frame() -> impl Strategy<Value = Frame> {
    let number = 0..=NUMBER;
    let setting =
        (any::<u8>(), 0u32..1 << 24, any::<u32>()).prop_map(|(flags, id, value)| Setting { flags, id, value });
    prop_oneof![
        (number.clone(), any::<bool>(), any::<bool>(), headers()).prop_map(|(stream, fin, unidirectional, headers)| {
            Frame::SynStream { stream, fin, unidirectional, headers }
        }),
        (number.clone(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (number.clone(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
            stream,
            fin,
            headers
        }),
        (number.clone(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
        proptest::collection::vec(setting, 0..4).prop_map(Frame::Settings),
        any::<u32>().prop_map(Frame::Ping),
        (number.clone(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (number.clone(), number.clone()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        (number, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(stream, fin, bytes)| Frame::Data { stream, fin, bytes: bytes.into() }),
    ]
}

fn encoded(frames: &[Frame]) -> BytesMut {
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    for frame in frames {
        encoder.encode(frame, &mut out).unwrap();
    }
    out
}

proptest! {
    #[test]
    fn frames_read_back(frames in proptest::collection::vec(frame(), 0..8)) {
        let mut decoder = Decoder::default();
        decoder.feed(&encoded(&frames));
        for frame in frames {
            prop_assert_eq!(decoder.next_frame(), Ok(Some(frame)));
        }
        prop_assert_eq!(decoder.next_frame(), Ok(None));
    }

    /// However the bytes arrive: pieces of one frame's data are the same data.
    #[test]
    fn bytes_may_come_in_any_portions(
        frames in proptest::collection::vec(frame(), 1..6),
        portion in 1usize..50,
    ) {
        let (mut decoder, mut heard) = (Decoder::default(), Vec::<Frame>::new());
        for bytes in encoded(&frames).chunks(portion) {
            decoder.feed(bytes);
            while let Some(frame) = decoder.next_frame().unwrap() {
                heard.push(frame);
            }
        }
        let data = |frames: &[Frame]| {
            let mut all = Vec::new();
            for frame in frames {
                if let Frame::Data { bytes, .. } = frame {
                    all.extend_from_slice(bytes);
                }
            }
            all
        };
        let others = |frames: &[Frame]| -> Vec<Frame> {
            frames.iter().filter(|f| !matches!(f, Frame::Data { .. })).cloned().collect()
        };
        let ends = |frames: &[Frame]| frames.iter().filter(|f| matches!(f, Frame::Data { fin: true, .. })).count();
        prop_assert_eq!(data(&heard), data(&frames));
        prop_assert_eq!(others(&heard), others(&frames));
        prop_assert_eq!(ends(&heard), ends(&frames));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }
}

#[test]
fn what_is_too_long_or_another_version_is_refused() {
    let next = |head: [u8; 8]| {
        let mut decoder = Decoder::default();
        decoder.feed(&head);
        decoder.next_frame()
    };
    assert_eq!(next([0x80, 3, 0, 6, 0, 0, 0x40, 1]), Err(SpdyError::TooLong(0x4001)));
    assert_eq!(next([0x80, 2, 0, 6, 0, 0, 0, 4]), Err(SpdyError::Version(2)));
    assert_eq!(next([0x80, 3, 0, 6, 0, 0, 0, 0]), Err(SpdyError::Short(6)));
    assert_eq!(next([0x80, 3, 0, 99, 0, 0, 0, 0]), Ok(None), "a type that nobody knows is passed over");
}

/// A long frame is handed on as it comes, and only its last piece ends the stream.
#[test]
fn a_long_data_frame_comes_in_pieces() {
    let long = Frame::Data { stream: 5, fin: true, bytes: vec![7; 3 * PIECE_MAX_BYTES].into() };
    let mut decoder = Decoder::default();
    decoder.feed(&encoded(&[long]));
    let mut pieces = Vec::new();
    while let Some(Frame::Data { stream: 5, fin, bytes }) = decoder.next_frame().unwrap() {
        pieces.push((fin, bytes.len()));
    }
    assert_eq!(pieces, [(false, PIECE_MAX_BYTES), (false, PIECE_MAX_BYTES), (true, PIECE_MAX_BYTES)]);
}
