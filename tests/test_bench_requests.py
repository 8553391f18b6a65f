"""The requests benchmark on a few: the plain way and this project get the same replies; a rerun asks nothing."""

from benchmarks import bench_requests as bench


def test_both_ways_get_the_same_replies():
    wanted = [f"Say {number}." for number in range(6)]
    with bench.server(0.001) as address, bench.fresh():
        assert bench.ours(address, wanted) == bench.plain(address, wanted) == [text.upper() for text in wanted]
        assert bench.asked(address) == 12
        bench.ours(address, wanted)
        assert bench.asked(address) == 12
