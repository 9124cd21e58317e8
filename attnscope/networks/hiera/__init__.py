"""Hiera: stages of plain blocks with mask unit attention, whose first block pools the queries."""
