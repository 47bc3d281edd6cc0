"""A contract type for import-linter: modules that may import these external packages and no others.

Import-linter's own contracts forbid what they name, so the next library that opens a socket passes
unseen. This one names what is allowed, the standard library included.
"""

from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

Violation = tuple[str, str, int]  # importer, imported, line


class AllowlistContract(Contract):
    """Keeps a set of modules to a set of external packages.

    Options:
        source_modules: Packages or modules to check, with everything below them. One that does not
            exist is skipped, as an optional layer is.
        allowed_modules: The only top-level packages from outside the root package that they may import.
    """

    type_name = "allowlist"

    source_modules = fields.SetField(subfield=fields.StringField())
    allowed_modules = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """List the direct imports of external packages that are not allowed."""
        violations = sorted(self._violations(graph))
        return ContractCheck(kept=not violations, metadata={"violations": violations})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line per import that is not allowed."""
        for importer, imported, line in cast(list[Violation], check.metadata["violations"]):
            output.print_error(f"{importer} may not import {imported} (l.{line})", bold=False)
        output.new_line()

    def _violations(self, graph: ImportGraph) -> set[Violation]:
        roots = cast(set[str], self.source_modules) & graph.modules
        importers = roots.union(*(graph.find_descendants(root) for root in roots))
        allowed = cast(set[str], self.allowed_modules)
        return {
            (importer, imported, detail["line_number"])
            for importer in importers
            for imported in graph.find_modules_directly_imported_by(importer)
            if graph.is_module_squashed(imported) and imported not in allowed
            for detail in graph.get_import_details(importer=importer, imported=imported)
        }
