"""The plugin in a pytest of its own."""

from importlib.metadata import entry_points

pytest_plugins = ["pytester"]


def test_it_is_registered_as_a_plugin():
    found = [each.value for each in entry_points(group="pytest11") if each.name == "apns_live"]
    assert set(found) == {"pytest_apns_live"}


def test_nothing_of_ours_is_imported_until_the_fixture_is_used(pytester):
    pytester.makepyfile(
        """
        import sys

        def ours():
            return [name for name in sys.modules if name.split(".")[0] == "apns_live"]

        def test_before():
            assert "pytest_apns_live" in sys.modules
            assert ours() == []

        def test_with_the_fixture(fake_apns):
            assert ours()
            assert fake_apns.url.startswith("https://localhost:")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error::ResourceWarning")
    result.assert_outcomes(passed=2)


def test_failures_read_well(pytester):
    pytester.makepyfile(
        """
        def test_fails(fake_apns):
            phone = fake_apns.devices.add(attributes_types=["GameAttributes"])
            phone.start_activity("GameAttributes", {"home": 1})
            phone.assert_shows({"home": 2}, timeout=0)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*phone-1 shows something else*", '*-   "home": 2*', '*+   "home": 1*']
    )


def test_positional_marker_arguments_are_refused(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.fake_apns("strict")
        def test_it(fake_apns):
            pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")
    result.stdout.fnmatch_lines(["*named options only*"])


def test_the_files_are_the_same_for_the_whole_session(pytester):
    pytester.makepyfile(
        """
        import pytest

        seen = set()

        @pytest.mark.parametrize("n", range(3))
        def test_it(fake_apns, n):
            seen.add((str(fake_apns.ca_file), fake_apns.key_file.read_text()))
            assert len(seen) == 1
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
