//! Pictures of the kinds that people really have, each a white bar at the top of a dark 32×24 picture:
//! what is read shows the bar at its top, what is damaged is refused. `data/pictures/make_pictures.py`
//! makes the files.

use std::path::Path;

use fleetloop_models::bundle::Bundle;
use fleetloop_models::content::{self, ContentError};
use fleetloop_models::golden::{GoldenCases, GoldenError};
use fleetloop_models::picture::{Channels, Frame, PictureError};
use fleetloop_models::preprocess::Preprocess;
use fleetloop_models::session::{Runtime, Session, Threads};
use fleetloop_protocol::sample::MediaType;

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures");
    std::fs::read(folder.join(name)).unwrap()
}

fn media_type(name: &str) -> MediaType {
    if name.ends_with(".png") { MediaType::Png } else { MediaType::Jpeg }
}

fn decode(name: &str) -> Result<Frame, PictureError> {
    Frame::decode(media_type(name), &file(name))
}

/// The mean of the bar's rows and of the others.
fn bar(frame: &Frame) -> [f64; 2] {
    assert_eq!((frame.width(), frame.height()), (32, 24));
    let row = frame.width() as usize * frame.channels().count();
    let mean =
        |values: &[u8]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
    [mean(&frame.pixels()[..8 * row]), mean(&frame.pixels()[8 * row..])]
}

#[test]
fn the_bar_is_at_the_top_however_the_picture_is_stored() {
    use Channels::{Grey, Rgb};
    // The red, green and blue of the bar and of the rest come to these means.
    let (rgb, grey) = ([(220.0 + 110.0 + 35.0) / 3.0, 90.0], [220.0, 30.0]);
    let cases = [
        ("plain.png", Grey, grey, 0.0),
        ("interlaced.png", Grey, grey, 0.0),
        ("plain.jpg", Rgb, rgb, 2.0),
        ("progressive.jpg", Rgb, rgb, 2.0),
        ("cmyk.jpg", Rgb, rgb, 2.0),
        ("exif3.png", Grey, grey, 0.0),
        ("exif6.png", Grey, grey, 0.0),
        ("exif3.jpg", Grey, grey, 2.0),
        ("exif6.jpg", Grey, grey, 2.0),
        ("palette.png", Rgb, rgb, 2.0),
        ("palette_alpha.png", Rgb, rgb, 2.0),
        ("grey_alpha.png", Grey, grey, 0.0),
        ("only_alpha.png", Grey, grey, 0.0),
        ("grey16.png", Grey, grey, 0.0),
        // Twelve of sixteen bits: what the file says is nearly black.
        ("grey12in16.png", Grey, [14.0, 2.0], 0.0),
        ("one_row.png", Grey, grey, 0.0),
    ];
    for (name, channels, want, within) in cases {
        let frame = decode(name).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(frame.channels(), channels, "{name}");
        for (found, want) in bar(&frame).into_iter().zip(want) {
            assert!((found - want).abs() <= within, "{name}: {found} instead of {want}");
        }
    }
    let [top, rest] = bar(&decode("one_bit.png").unwrap());
    assert!(top > 200.0 && rest < 60.0, "one_bit.png: {top} and {rest}");
    let pixel = decode("one_pixel.png").unwrap();
    assert_eq!((pixel.width(), pixel.height(), pixel.pixels()), (1, 1, &[220][..]));
}

#[test]
fn bytes_behind_the_end_change_nothing() {
    for name in ["plain.png", "plain.jpg", "progressive.jpg"] {
        let tail = [file(name), vec![0; 500]].concat();
        assert_eq!(
            Frame::decode(media_type(name), &tail).unwrap(),
            decode(name).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_picture_that_is_cut_is_refused_even_with_an_end_marker() {
    for name in ["plain.png", "plain.jpg", "progressive.jpg", "cut_half.jpg", "cmyk.jpg"] {
        let whole = file(name);
        let cut = &whole[..whole.len() * 2 / 3];
        let error = Frame::decode(media_type(name), cut).unwrap_err();
        assert!(
            matches!(error, PictureError::Content(ContentError::Cut { .. })),
            "{name}: {error:?}"
        );
    }
    assert!(decode("cut_half.jpg").is_err());
    // A camera that lost the rest of the data writes an end marker all the same.
    for name in ["plain.jpg", "cmyk.jpg", "progressive.jpg", "exif6.jpg"] {
        let whole = file(name);
        for less in [6, 12, 20] {
            let mut cut = whole[..whole.len() - 2 - less].to_vec();
            // Not in the middle of a pair.
            while cut.last() == Some(&0xff) {
                cut.pop();
            }
            cut.extend([0xff, 0xd9]);
            let found = Frame::decode(MediaType::Jpeg, &cut);
            assert!(found.is_err(), "{name} without {less} bytes is taken");
        }
    }
    let mut half = file("cut_half.jpg");
    half.extend([0xff, 0xd9]);
    assert!(content::check(MediaType::Jpeg, &half).is_ok(), "its headers are whole");
    let error = Frame::decode(MediaType::Jpeg, &half).unwrap_err();
    assert!(matches!(error, PictureError::Content(ContentError::Cut { .. })), "{error:?}");
}

#[test]
fn what_is_no_png_or_jpeg_is_refused_by_name() {
    for (name, found) in
        [("bmp.bmp", "image/bmp"), ("tiff.tif", "image/tiff"), ("webp.webp", "image/webp")]
    {
        for media_type in [MediaType::Png, MediaType::Jpeg] {
            let error = content::check(media_type, &file(name)).unwrap_err();
            assert!(error.to_string().contains(found), "{name}: {error}");
        }
    }
    let error = content::check(MediaType::Png, &file("plain.jpg")).unwrap_err();
    assert!(error.to_string().contains("image/jpeg"), "{error}");
    assert!(matches!(content::check(MediaType::Png, &[]), Err(ContentError::Empty { .. })));
}

#[test]
fn sixty_million_pixels_are_read_and_ninety_are_not() {
    let wide = |width: u32| {
        let pixels = vec![9; width as usize * 3000];
        Frame::new(width, 3000, Channels::Grey, pixels).unwrap().encode_png().unwrap()
    };
    let within = wide(20_000);
    assert!(content::check(MediaType::Png, &within).is_ok());
    assert_eq!(Frame::decode(MediaType::Png, &within).unwrap().pixels().len(), 60_000_000);
    let over = wide(30_000);
    let (checked, decoded) =
        (content::check(MediaType::Png, &over), Frame::decode(MediaType::Png, &over));
    assert!(matches!(checked, Err(ContentError::TooLarge { .. })), "{checked:?}");
    assert!(matches!(decoded, Err(PictureError::Content(ContentError::TooLarge { .. }))));
}

#[test]
fn a_turned_picture_is_the_same_to_a_model_and_in_its_golden_cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/linear-1");
    let bundle = Bundle::open(&folder, None).unwrap();
    let mut preprocess = Preprocess::new(bundle.manifest());
    let mut input = |name: &str| {
        let mut values = Vec::new();
        preprocess.apply(&decode(name).unwrap(), &mut values).unwrap();
        values
    };
    let upright = input("plain.png");
    for (name, within) in
        [("exif3.png", 0.0), ("exif6.png", 0.0), ("exif3.jpg", 0.05), ("exif6.jpg", 0.05)]
    {
        let far = input(name).iter().zip(&upright).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= within, "{name}: {far}");
    }
    let mut session = Session::open(&Runtime::load(None).unwrap(), &bundle, Threads(1)).unwrap();
    let outputs = session.outputs(&decode("plain.png").unwrap()).unwrap();
    for name in ["exif3.png", "exif6.png", "exif3.jpg", "exif6.jpg"] {
        let payload = (media_type(name), file(name));
        let golden = GoldenCases::record(&mut session, &[payload], 1e-3).unwrap();
        assert!(golden.check(&mut session).is_ok(), "{name}");
        let recorded: serde_json::Value =
            serde_json::from_slice(&golden.to_json().unwrap()).unwrap();
        for (found, want) in recorded["cases"][0]["output"].as_array().unwrap().iter().zip(&outputs)
        {
            let far = found.as_f64().unwrap() - f64::from(*want);
            assert!(far.abs() < 0.05, "{name}: off by {far}");
        }
    }
    let mut half = file("cut_half.jpg");
    half.extend([0xff, 0xd9]);
    let error = GoldenCases::record(&mut session, &[(MediaType::Jpeg, half)], 1e-3).unwrap_err();
    assert!(matches!(error, GoldenError::Payload { case: 0, .. }), "{error}");
}
