"""The web console's front end, in TypeScript, and what builds it. The server is `jigsaw_triton/console/web`."""
