# SPDX-License-Identifier: Apache-2.0
"""The executor from the hello to the goodbye, against a driver that really is asynchronous."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from conversation import FAULT, SPIN, STORE, Serve, end_well, prepare
from wire_client import (
    CALLS,
    EVENT,
    FUNCTION,
    ILLEGAL_ADDRESS,
    INVALID_CONTEXT,
    INVALID_HANDLE,
    OP_DEVICES,
    STREAM,
    Worker,
    handle,
)


def test_hello_and_goodbye(serve: Serve) -> None:
    end_well(serve())


def test_devices(serve: Serve) -> None:
    worker = serve(devices="1,0")
    reply = worker.client.operation(OP_DEVICES)
    version, count = struct.unpack_from("<iI", reply.body)
    assert (version, count) == (13000, 2)
    size = (len(reply.body) - 8) // 2
    names = [reply.body[8 + i * size :][:256].rstrip(b"\0") for i in range(2)]
    assert names == [b'Fake "device" 1', b'Fake "device" 0']
    end_well(worker)


def test_one_way_failure_is_reported_once_and_first_come(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    client.row("cuMemsetD8Async", struct.pack("<QQQQ", 0x123456, 1, 8, 0))
    client.launch(handle(FUNCTION, 99), b"")
    reply = client.synchronize()
    assert (reply.status, reply.deferred) == (0, 1)
    assert reply.deferred_call == CALLS["cuMemsetD8Async"]
    assert client.synchronize().deferred == 0
    assert client.download(address, 1) == b"\0"
    end_well(worker)


def test_sticky_error_comes_back_from_everything(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    prepare(client)
    client.launch(FAULT, b"")
    assert client.synchronize().status == ILLEGAL_ADDRESS
    assert client.alloc(64)[0] == ILLEGAL_ADDRESS
    end_well(worker)


def test_handles_that_are_not_there(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    prepare(client)
    for number in (handle(STREAM, 5), handle(EVENT, 1), 12345, 3, handle(STREAM, 0xFFFFFF)):
        assert client.synchronize(number).status == INVALID_HANDLE
    one = client.stream(1)
    client.row("cuStreamDestroy_v2", struct.pack("<Q", one))
    assert client.synchronize(one).status == INVALID_HANDLE
    end_well(worker)


def test_contexts(serve: Serve) -> None:
    worker = serve(devices="0,1")
    client = worker.client
    client.context = 0
    assert client.alloc(64)[0] == INVALID_CONTEXT
    client.context = 2
    assert client.alloc(64)[0] == 0
    assert client.sync("cuDevicePrimaryCtxRelease_v2", struct.pack("<Q", 1)).status == 0
    assert client.sync("cuDevicePrimaryCtxRelease_v2", struct.pack("<Q", 1)).status == 0
    assert client.alloc(64)[0] == 0
    client.stream(1)
    assert client.sync("cuDevicePrimaryCtxReset_v2", struct.pack("<Q", 1)).status == 0
    assert client.synchronize(handle(STREAM, 1)).status == INVALID_HANDLE
    client.context = 77
    made = handle(1, 77)
    assert client.alloc(64)[0] == INVALID_CONTEXT
    assert client.sync("cuCtxCreate_v2", struct.pack("<QQQ", made, 0, 0)).status == 0
    assert client.alloc(64)[0] == 0
    client.context = 1
    assert client.alloc(64)[0] == 0
    assert client.sync("cuCtxDestroy_v2", struct.pack("<Q", made)).status == 0
    client.context = 77
    assert client.alloc(64)[0] == INVALID_CONTEXT
    end_well(worker)


def test_answer_of_a_row(serve: Serve) -> None:
    worker = serve()
    reply = worker.client.sync("cuCtxGetLimit", struct.pack("<QQ", 1, 3))
    assert (reply.status, reply.body) == (0, struct.pack("<Q", 1003))
    missing = worker.client.sync("cuLibraryGetKernelCount", struct.pack("<QQ", 1, 0))
    assert (missing.status, missing.body) == (801, b"")
    end_well(worker)


def test_other_version_gets_one_line(serve: Serve) -> None:
    worker = serve(hello=False)
    status, text = worker.client.hello(spec_hash=1)
    assert status != 0 and "different versions" in text
    code, log = worker.end()
    assert code == 2 and log.count("\n") == 1


def test_no_driver(serve: Serve) -> None:
    worker = serve(hello=False, driver=Path("/nonexistent/libcuda.so.1"))
    status, text = worker.client.hello()
    assert status == 100 and "/nonexistent/libcuda.so.1" in text
    assert worker.end()[0] == 3


def test_driver_without_devices(serve: Serve) -> None:
    worker = serve(hello=False, environment={"FAKE_NO_DEVICE": "1"})
    assert worker.client.hello()[0] == 100
    assert worker.end()[0] == 3


def test_environment_is_applied_before_the_driver_starts(serve: Serve) -> None:
    worker = serve(hello=False, warm=True)
    text = {"CUDA_LAUNCH_BLOCKING": "1", "LD_PRELOAD": "x", "CUDA_VISIBLE_DEVICES": "1"}
    assert worker.client.hello(text)[0] == 0
    worker.client.goodbye()
    code, log = worker.end()
    assert code == 0 and log.endswith("ignoring CUDA_LAUNCH_BLOCKING\n") and log.count("\n") == 1


def test_a_client_writes_no_lines_of_the_log(serve: Serve) -> None:
    """Nor as many of ours as it likes."""
    worker = serve(hello=False, warm=True)
    text = "\n[ERROR] client bob was disabled by root \x1b[31m\x07"
    entry = f"CUDA_MODULE_LOADING=x{text}"
    more = {f"{entry}\0{entry}\0CUDA_DISABLE_JIT": "1", "CUDA_MODULE_LOADING": text}
    assert worker.client.hello(more)[0] == 0
    worker.client.goodbye()
    code, log = worker.end()
    assert code == 0 and log.endswith("ignoring CUDA_DISABLE_JIT, CUDA_MODULE_LOADING\n")
    assert log.count("\n") == 1


def test_client_that_goes_without_a_word(serve: Serve) -> None:
    worker = serve()
    worker.client.socket.close()
    assert worker.end()[0] == 1


def test_client_gone_while_the_device_is_busy(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    client.launch(SPIN, struct.pack("<Q", address))
    client.free(address)  # which waits for the kernel
    client.flush()
    time.sleep(0.1)
    client.socket.close()
    assert worker.end()[0] == 1


def test_client_that_does_not_read(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    big = client.alloc(4 << 20)[1]
    downloads = [client.start_download(big, 4 << 20, 0, 1) for _ in range(10)]
    client.launch(STORE, struct.pack("<QI", address, 3))
    client.flush()
    # forty megabytes wait for a reader, and still commands are carried out
    other, event = client.stream(1, 1), handle(EVENT, 1)
    client.upload(address + 1, b"\x05", other, 1)
    client.row("cuEventCreate", struct.pack("<QQ", event, 0))
    client.row("cuEventRecord", struct.pack("<QQ", event, other))
    client.row("cuStreamWaitEvent", struct.pack("<QQQ", 0, event, 0))
    last = client.start_download(address, 2, 0, 1)
    client.flush()
    time.sleep(0.3)
    for download in downloads:
        assert client.wait(download).status == 0
    assert client.wait(last).bulk == b"\x03\x05"
    end_well(worker)


def test_python_shell(fake_driver: Path) -> None:
    with Worker(fake_driver, tcp=True, warm=True) as worker:
        assert worker.client.hello() == (0, "")
        assert worker.client.alloc(64)[0] == 0
        worker.client.goodbye()
        assert worker.end() == (0, "")
