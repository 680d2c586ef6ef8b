//! Payloads of kinds that were taken before: a PNG named JPEG, HTML, nothing, half of a picture.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};

use super::*;
use crate::picture::{Channels, Frame, PictureError};

fn png() -> Vec<u8> {
    let pixels = (0..32 * 24).map(|i| (i * 7 % 256) as u8).collect();
    Frame::new(32, 24, Channels::Grey, pixels).unwrap().encode_png().unwrap()
}

fn jpeg() -> Vec<u8> {
    let frame = Frame::decode(MediaType::Png, &png()).unwrap();
    let grey = image::GrayImage::from_raw(32, 24, frame.pixels().to_vec()).unwrap();
    let mut out = Cursor::new(Vec::new());
    DynamicImage::ImageLuma8(grey).write_to(&mut out, ImageFormat::Jpeg).unwrap();
    out.into_inner()
}

/// A PNG of nothing but a header, one empty row's worth of data and the end.
fn claims(width: u32, height: u32, depth: u8, colour: u8, extra: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut out = png::SIGNATURE.to_vec();
    let mut add = |kind: &[u8; 4], data: &[u8]| {
        out.extend((data.len() as u32).to_be_bytes());
        let named = [&kind[..], data].concat();
        out.extend(&named);
        out.extend(png::crc32(&named).to_be_bytes());
    };
    let sizes = [width.to_be_bytes(), height.to_be_bytes()].concat();
    add(b"IHDR", &[&sizes[..], &[depth, colour, 0, 0, 0]].concat());
    for (kind, data) in extra {
        add(kind, data);
    }
    add(b"IDAT", &[0]);
    add(b"IEND", &[]);
    out
}

#[test]
fn whole_pictures_pass_with_bytes_behind_their_end_too() {
    let (png, jpeg) = (png(), jpeg());
    let header = Header { width: 32, height: 24, bytes_per_pixel: 1 };
    assert_eq!(check(MediaType::Png, &png), Ok(header));
    assert_eq!(check(MediaType::Jpeg, &jpeg), Ok(header));
    for (media_type, bytes) in [(MediaType::Png, png), (MediaType::Jpeg, jpeg)] {
        let tail = [bytes, vec![0; 500]].concat();
        assert_eq!(check(media_type, &tail), Ok(header));
        Frame::decode(media_type, &tail).unwrap();
    }
}

#[test]
fn a_picture_that_is_cut_anywhere_is_refused_before_and_by_decoding() {
    for (media_type, bytes) in [(MediaType::Png, png()), (MediaType::Jpeg, jpeg())] {
        for len in 0..bytes.len() {
            let cut = &bytes[..len];
            let error = check(media_type, cut).unwrap_err();
            let named = matches!(
                error,
                ContentError::Cut { .. } | ContentError::Empty { .. } | ContentError::Other { .. }
            );
            assert!(named, "{len}: {error}");
            assert!(matches!(Frame::decode(media_type, cut), Err(PictureError::Content(_))));
        }
    }
}

#[test]
fn what_is_another_format_is_refused_with_its_name() {
    let cases: [(MediaType, Vec<u8>, &str); 5] = [
        (MediaType::Png, jpeg(), "image/jpeg"),
        (MediaType::Jpeg, png(), "image/png"),
        (MediaType::Png, b"<!DOCTYPE html><p>hello".to_vec(), "HTML"),
        (MediaType::Jpeg, b"BM123456".to_vec(), "image/bmp"),
        (MediaType::Png, b"anything".to_vec(), "no format"),
    ];
    for (media_type, bytes, name) in cases {
        let error = check(media_type, &bytes).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.to_string().contains(media_type.as_str()), "{error}");
    }
    assert_eq!(check(MediaType::Png, &[]), Err(ContentError::Empty { expected: "image/png" }));
}

#[test]
fn the_limit_is_the_same_before_and_by_decoding() {
    let wide = |width, height, depth, colour| claims(width, height, depth, colour, &[]);
    let clear: &[(&[u8; 4], &[u8])] = &[(b"PLTE", &[0; 3]), (b"tRNS", &[0])];
    for (bytes, fits) in [
        (wide(20_000, 3000, 8, 0), true),
        (wide(30_000, 3000, 8, 0), false),
        (wide(20_000, 3000, 8, 2), true),
        (wide(20_000, 3000, 8, 6), false),
        (wide(20_000, 3000, 16, 0), true),
        (wide(8192, 8192, 16, 4), false),
        // A palette unpacks to colour, and one with transparency to four bytes a pixel.
        (claims(20_000, 3000, 8, 3, &clear[..1]), true),
        (claims(20_000, 3000, 8, 3, clear), false),
    ] {
        let checked = check(MediaType::Png, &bytes);
        assert_eq!(matches!(checked, Err(ContentError::TooLarge { .. })), !fits, "{checked:?}");
        // With no pixels to speak of it cannot be decoded, but not for its size.
        let decoded = Frame::decode(MediaType::Png, &bytes).unwrap_err();
        let too_large = matches!(decoded, PictureError::Content(ContentError::TooLarge { .. }));
        assert_eq!(too_large, !fits, "{decoded}");
        assert!(
            !matches!(decoded, PictureError::TooLarge { .. }),
            "the decoder's limit is another"
        );
    }
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let mut twice = claims(1, 1, 8, 0, &[]);
    twice.splice(8..8, claims(1, 1, 8, 0, &[])[8..33].iter().copied());
    let mut checksum = png();
    checksum[16] ^= 1;
    for bytes in [
        claims(0, 5, 8, 0, &[]),
        claims(5, 0, 8, 0, &[]),
        claims(5, u32::MAX, 8, 0, &[]),
        claims(5, 5, 3, 0, &[]),
        claims(5, 5, 8, 5, &[]),
        claims(5, 5, 8, 3, &[]),
        twice,
        checksum,
    ] {
        let error = check(MediaType::Png, &bytes).unwrap_err();
        assert!(matches!(error, ContentError::Damaged { .. }), "{error}");
    }
    let sof = jpeg().windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let altered = |at: usize, value: u8| {
        let mut bytes = jpeg();
        bytes[sof + at] = value;
        bytes
    };
    // Lossless, 12 bits, no height, two channels.
    for bytes in [altered(1, 0xc3), altered(4, 12), altered(6, 0), altered(9, 2)] {
        let error = check(MediaType::Jpeg, &bytes).unwrap_err();
        assert!(matches!(error, ContentError::Damaged { .. }), "{error}");
    }
}
