"""Makes the pictures in this folder again: python3 make_pictures.py (PyPI numpy, Pillow==13.0.0).

Each shows a white bar at the top of a dark picture of 32x24 and is of a kind that people really have:
turned by EXIF, 16 bits, CMYK, a palette, transparency. The tests cut them off themselves.
"""
import io, pathlib, struct, zlib
import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
bar = np.full((24, 32), 30, np.uint8)
bar[:8] = 220
grey = Image.fromarray(bar)
rgb = Image.merge("RGB", [grey, grey.point(lambda v: v // 2), grey.point(lambda v: 255 - v)])
save = lambda picture, name, **how: picture.save(HERE / name, **how)

save(grey, "plain.png")
save(rgb, "plain.jpg", quality=95)
save(rgb, "progressive.jpg", quality=95, progressive=True)
# The pixels lie turned, and EXIF says how to turn them back.
for orientation, turned in ((3, grey.rotate(180)), (6, grey.rotate(90, expand=True))):
    exif = Image.Exif()
    exif[0x112] = orientation
    save(turned, f"exif{orientation}.jpg", exif=exif, quality=95)
    save(turned, f"exif{orientation}.png", exif=exif)
save(Image.fromarray(bar.astype(np.uint16) * 257), "grey16.png")
save(Image.fromarray(bar.astype(np.uint16) * 16), "grey12in16.png")
save(rgb.convert("CMYK"), "cmyk.jpg", quality=95)
palette = rgb.convert("P", palette=Image.ADAPTIVE, colors=8)
save(palette, "palette.png")
palette.info["transparency"] = 0
save(palette, "palette_alpha.png", transparency=0)
save(Image.merge("LA", [grey, Image.new("L", grey.size, 255)]), "grey_alpha.png")
save(Image.merge("LA", [Image.new("L", grey.size, 255), grey]), "only_alpha.png")
save(grey.convert("1"), "one_bit.png")
save(grey, "one_row.png")
save(Image.fromarray(bar[:1, :1]), "one_pixel.png")
save(rgb, "bmp.bmp")
save(grey, "tiff.tif")
save(rgb, "webp.webp")
big = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
big[:80] = 250
half = io.BytesIO()
Image.fromarray(big).save(half, "JPEG", quality=90)
with open(HERE / "cut_half.jpg", "wb") as out:
    out.write(half.getvalue()[: len(half.getvalue()) // 2])

chunk = lambda kind, data: (
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
)
rows = b""
passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
for x0, y0, dx, dy in passes:
    for row in bar[y0::dy]:
        if len(row[x0::dx]):
            rows += b"\0" + row[x0::dx].tobytes()
with open(HERE / "interlaced.png", "wb") as out:
    out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 8, 0, 0, 0, 1))
              + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
