// The bundler collects imported style sheets.
declare module "*.css";
