"""The survey benchmark on a small file: the plain way and this project count the same."""

from benchmarks import bench_survey as bench

from culturellm_utils import survey


def test_both_ways_count_the_same(tmp_path):
    own, asked, path = bench.countries(), survey.questions("")[:5], tmp_path / "wvs.csv"
    bench.write(path, asked, own, 2000, 30)
    header, *rows = path.read_text().split()
    assert (len(header.split(",")), len(rows)) == (30, 2000)
    counted = {key: people for country in own for key, people in bench.plain(path, country, asked).items()}
    assert len(own) == 11
    assert counted == bench.ours(path, own, asked)
    assert bench.limit(path, asked).shape == (2000, 7)
