"""Reads the file of test_safetensors.c by the words of the safetensors specification alone."""
import json
import struct
import sys

raw = open(sys.argv[1], "rb").read()
(length,) = struct.unpack("<Q", raw[:8])
header, data = raw[8 : 8 + length], raw[8 + length :]
assert length % 8 == 0 and header[:1] == b"{" and header.rstrip(b" ")[-1:] == b"}"
tensors = json.loads(header.decode("utf-8"))
meta = tensors.pop("__metadata__")
assert meta == {"step": "1200", "config": 'seed: 42\nname: "caf\u00e9"\n', "empty": ""}, meta
codes = {"F32": "f", "U64": "Q", "I64": "q"}
end, values = 0, {}
for name, entry in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
    begin, stop = entry["data_offsets"]
    code = codes[entry["dtype"]]
    count = 1
    for size in entry["shape"]:
        count *= size
    assert begin == end and stop - begin == count * struct.calcsize("<" + code)
    values[name] = (entry["shape"], struct.unpack(f"<{count}{code}", data[begin:stop]))
    end = stop
assert end == len(data)
expected = tuple(struct.unpack("<f", struct.pack("<f", x))[0] for x in (0.5, -1.25, 3e-30, 4, 0, 6.5))
assert values["conv1.weight"] == ([3, 1, 1, 2], expected)
assert values["bn1.aux_bn.weight"] == ([1], (2.0,)) and values["scalar"] == ([], (2.0,))
assert values["empty"] == ([0, 5], ()) and values["position"] == ([2], (0xFEDCBA9876543210, 7))
assert values["signed"] == ([2], (0xFEDCBA9876543210 - 2**64, 7)) and len(values) == 6
