"""Accepts calls: stores each in one transaction and answers it. Nothing here sends pushes."""
