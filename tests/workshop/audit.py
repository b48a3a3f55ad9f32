"""Ask pip-audit for known vulnerabilities in what apns-live installs; say so where it cannot ask.

Only what a user gets counts as a failure: a finding in a tool of the test environment is printed.
"""

from __future__ import annotations

import json
import subprocess
import sys

from packaging.utils import canonicalize_name

from tests.workshop.requirements import USER_EXTRAS, closure


def main() -> int:
    """Return 1 when something that a user would install has a known vulnerability."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--format=json"]
    command += ["--progress-spinner=off", "--timeout=20"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        answer = json.loads(run.stdout)
    except subprocess.TimeoutExpired:
        print("pip-audit: not checked, no answer from the vulnerability service in 4 minutes")
        return 0
    except json.JSONDecodeError:
        lines = run.stderr.strip().splitlines() or ["no output"]
        print(f"pip-audit: not checked, it could not run here ({lines[-1][:160]})")
        return 0
    ours = closure(*USER_EXTRAS)
    bad = 0
    for package in answer["dependencies"]:
        for found in package.get("vulns", []):
            user_gets_it = canonicalize_name(package["name"]) in ours
            bad += user_gets_it
            where = "INSTALLED BY USERS" if user_gets_it else "test environment only"
            print(f"pip-audit: {package['name']} {package['version']}: {found['id']} ({where})")
    print(f"pip-audit: {len(answer['dependencies'])} packages checked, {bad} findings that count")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
