"""The files of a new mesh, by name: description, policies, test cases, what to run, and how to go on."""

from collections.abc import Mapping

from authz.starter.invariants_text import invariants_text
from authz.starter.mesh_plan import StarterPlan
from authz.starter.mesh_text import mesh_text
from authz.starter.policy_text import edges_text, everywhere_text, ingress_text
from authz.starter.readme_text import readme_text, run_text, up_text
from authz.starter.suite_text import suite_text

STATE = ".authz"
"""Where ``authz up`` keeps certificates, sockets and logs."""
MESH, POLICIES, SUITE, INVARIANTS = "mesh.yaml", "policies", "suite.yaml", "invariants.yaml"
UP, RUN = "up.yaml", "run.sh"


def written_files(plan: StarterPlan) -> Mapping[str, str]:
    """Make every file, by its name below the folder, in the order in which one reads them."""
    files = {
        "README.md": readme_text(plan),
        MESH: mesh_text(plan),
        f"{POLICIES}/everywhere.yaml": everywhere_text(),
        f"{POLICIES}/edges.yaml": edges_text(plan),
    }
    if plan.issuer is not None:
        files[f"{POLICIES}/ingress.yaml"] = ingress_text(plan, plan.issuer)
    files |= {SUITE: suite_text(plan), INVARIANTS: invariants_text(plan), UP: up_text(plan), RUN: run_text()}
    files[".gitignore"] = f"{STATE}/\n"
    return {name: text for name, text in files.items() if text}
