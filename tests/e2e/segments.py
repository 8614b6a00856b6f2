"""Segments taken apart and put together again with any lie in them, and right checksums (docs/format.md)."""
import ctypes
import hashlib
import struct

MAX64 = (1 << 64) - 1
END = b"LRSEGEND"
LOG, INCREMENT, SNAPSHOT, END_OF_LOG = 1, 2, 3, 4
FOLDED, RESYNC, PAGE_HASHES = 1, 2, 4

_HEADER = struct.Struct("<8sHBBI16s16sQQQ24x")
_TRAILER = struct.Struct("<QQQIIq8sIIIIQQQQQQ40x")
_HEADER_FIELDS = ("magic", "version", "kind", "flags", "page_size", "database", "generation", "writer", "sequence",
                  "min_txid")
_TRAILER_FIELDS = ("max_txid", "checksum_before", "checksum_after", "pages_before", "pages_after", "created", "salts",
                   "frame", "frame_checksum_1", "frame_checksum_2", "block_count", "version_count", "commit_count",
                   "index_offset", "index_stored", "index_raw", "index_hash")

# Python's standard library has neither; libreplica needs both, so they are there.
_xxhash = ctypes.CDLL("libxxhash.so.0")
_xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
_xxhash.XXH3_64bits_withSeed.argtypes = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64
_zstd = ctypes.CDLL("libzstd.so.1")
_zstd.ZSTD_decompress.restype = ctypes.c_size_t
_zstd.ZSTD_decompress.argtypes = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t


def hash64(data, seed=0):
    """XXH3-64; of a page with its number as the seed."""
    return _xxhash.XXH3_64bits_withSeed(data, len(data), seed)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value):
    return ((value << 1) ^ (value >> 63)) & MAX64


def unpack(frame, size):
    out = ctypes.create_string_buffer(size)
    if _zstd.ZSTD_decompress(out, size, frame, len(frame)) != size:
        raise ValueError("not a zstd frame of %d bytes" % size)
    return out.raw


def pack(*parts, window=0x38):
    """A zstd frame of literal bytes and of runs, (byte, count): small, and of any size without the memory for it.
    `window` is the frame's window descriptor, 128 KiB unless told otherwise."""
    most = 128 * 1024
    blocks = []
    for part in parts:
        if isinstance(part, bytes):
            blocks += [(0, len(part[at:at + most]), part[at:at + most]) for at in range(0, len(part), most)]
        else:
            byte, count = part
            blocks += [(1, min(most, count - at), byte) for at in range(0, count, most)]
    size = sum(count for _, count, _ in blocks)
    out = bytearray(struct.pack("<IBBQ", 0xfd2fb528, 0xc0, window, size))
    for number, (kind, count, data) in enumerate(blocks):
        last = number == len(blocks) - 1
        out += struct.pack("<I", int(last) | kind << 1 | count << 3)[:3] + data
    return bytes(out)


def padding(size):
    """A zstd frame that readers skip, of about `size` bytes."""
    return struct.pack("<II", 0x184d2a50, size) + bytes(size)


class Index:
    """The index, uncompressed: lists that a test changes."""

    def __init__(self, raw, fields):
        self.at = 0

        def number():
            value = shift = 0
            while True:
                byte = raw[self.at]
                self.at += 1
                value |= (byte & 0x7f) << shift
                shift += 7
                if byte < 0x80:
                    return value

        def word():
            self.at += 8
            return struct.unpack_from("<Q", raw, self.at - 8)[0]
        self.commits = [[number(), number()] for _ in range(fields["commit_count"])]  # time, pages: zigzag differences
        self.checksums = [word() for _ in self.commits]
        self.blocks = [[number(), number(), number(), word()] for _ in range(fields["block_count"])]
        self.versions = [number() for _ in range(fields["version_count"])]  # page difference << 1 | has base
        self.txids = [] if fields["flags"] & FOLDED else [number() for _ in self.versions]
        self.rest = raw[self.at:]

    def raw(self):
        return b"".join([varint(time) + varint(pages) for time, pages in self.commits] +
                        [struct.pack("<Q", checksum) for checksum in self.checksums] +
                        [varint(stored) + varint(raw) + varint(count) + struct.pack("<Q", hashed)
                         for stored, raw, count, hashed in self.blocks] +
                        [varint(version) for version in self.versions] + [varint(txid) for txid in self.txids] +
                        [self.rest])


class Segment:
    """What is in an object. Change `fields` and `index`; bytes() puts it together."""

    def __init__(self, data):
        self.fields = dict(zip(_HEADER_FIELDS, _HEADER.unpack_from(data)))
        self.fields.update(zip(_TRAILER_FIELDS, _TRAILER.unpack_from(data, len(data) - 200)))
        f = self.fields
        self.blocks = data[_HEADER.size:f["index_offset"]]
        stored = data[f["index_offset"]:f["index_offset"] + f["index_stored"]]
        self.index = Index(unpack(stored, f["index_raw"]), f)

    def header(self, **fields):
        return _HEADER.pack(*[dict(self.fields, **fields)[name] for name in _HEADER_FIELDS])

    def trailer(self, before, **fields):
        """With the checksums of what is before it; without them when that is None."""
        out = _TRAILER.pack(*[dict(self.fields, **fields)[name] for name in _TRAILER_FIELDS])
        out += bytes(32) if before is None else hashlib.sha256(before + out).digest()
        return out + struct.pack("<Q", hash64(out)) + END

    def bytes(self, raw=None, stored=None, **fields):
        """`raw` or `stored` take the place of the index, uncompressed or as stored; fields that of the right ones."""
        raw = self.index.raw() if raw is None else raw
        stored = pack(raw) if stored is None else stored
        body = self.header(**fields) + self.blocks
        right = {"index_offset": len(body), "index_stored": len(stored), "index_raw": len(raw),
                 "index_hash": hash64(stored)}
        return body + stored + self.trailer(body + stored, **dict(right, **fields))
